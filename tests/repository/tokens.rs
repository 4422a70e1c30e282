//! Rust source as words and signs, without comments and the contents of strings; and the paths
//! in it.

use crate::sources::Source;

/// A word or a sign, and its line from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub line: usize,
    pub text: String,
}

impl Token {
    pub fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// The words and signs of `source`. `::`, `=>` and `->` are one sign each; a string is `""`.
pub fn tokens(source: &Source) -> Vec<Token> {
    let characters: Vec<(usize, char)> = source
        .lines
        .iter()
        .enumerate()
        .flat_map(|(index, line)| line.chars().chain(['\n']).map(move |char| (index + 1, char)))
        .collect();
    let at = |index: usize| characters.get(index).map_or('\0', |(_, character)| *character);
    let (mut tokens, mut index) = (Vec::new(), 0);
    while index < characters.len() {
        let (line, first) = characters[index];
        let start = index;
        let text = match first {
            '/' if at(index + 1) == '/' => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
                continue;
            }
            '"' => {
                index = after_string(&characters, index + 1, 0);
                "\"\"".to_owned()
            }
            '\'' if at(index + 1) == '\\' || at(index + 2) == '\'' => {
                index += 2;
                while at(index) != '\'' {
                    index += 1;
                }
                index += 1;
                "''".to_owned()
            }
            _ if first.is_alphanumeric() || first == '_' => {
                while at(index).is_alphanumeric() || at(index) == '_' {
                    index += 1;
                }
                let word: String =
                    characters[start..index].iter().map(|(_, character)| character).collect();
                if ["r", "br", "b"].contains(&&*word) && ['"', '#'].contains(&at(index)) {
                    let hashes = (index..).take_while(|index| at(*index) == '#').count();
                    if at(index + hashes) == '"' {
                        let escapes = if word.contains('r') { hashes + 1 } else { 0 };
                        index = after_string(&characters, index + hashes + 1, escapes);
                        tokens.push(Token { line, text: "\"\"".to_owned() });
                        continue;
                    }
                }
                word
            }
            _ if first.is_whitespace() => {
                index += 1;
                continue;
            }
            _ => {
                let two: String = [first, at(index + 1)].iter().collect();
                let text =
                    if ["::", "=>", "->"].contains(&&*two) { two } else { first.to_string() };
                index += text.chars().count();
                text
            }
        };
        tokens.push(Token { line, text });
    }
    tokens
}

/// The index behind a string whose contents begin at `index`. `raw` is 0 for a string with escapes,
/// and else one more than the number of its hashes.
fn after_string(characters: &[(usize, char)], mut index: usize, raw: usize) -> usize {
    let at = |index: usize| characters.get(index).map_or('"', |(_, character)| *character);
    loop {
        match at(index) {
            '\\' if raw == 0 => index += 2,
            '"' if (1..raw).all(|hash| at(index + hash) == '#') => return index + raw.max(1),
            _ => index += 1,
        }
    }
}

/// A path as it is written: `a::b::c`, each name in braces on its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Mention {
    pub line: usize,
    pub path: Vec<String>,
    /// The name that it gets, in a `use`.
    pub alias: Option<String>,
    /// Whether it stands in a `use`.
    pub is_import: bool,
}

/// All paths of at least two names, and all imports.
pub fn mentions(tokens: &[Token]) -> Vec<Mention> {
    let text = |index: usize| tokens.get(index).map_or("", |token| &token.text);
    let (mut found, mut index) = (Vec::new(), 0);
    while index < tokens.len() {
        let is_import = index > 0 && text(index - 1) == "use";
        let is_visibility = index > 1 && text(index - 1) == "in" && text(index - 2) == "(";
        let begins = tokens[index].is_word()
            && (is_import || text(index + 1) == "::")
            && !is_visibility
            && !["::", "."].contains(&text(index.wrapping_sub(1)));
        if begins {
            index = tree(tokens, index, &[], is_import, &mut found);
        } else {
            index += 1;
        }
    }
    found
}

/// Reads the tree of paths at `index` and answers the index behind it.
fn tree(
    tokens: &[Token],
    mut index: usize,
    above: &[String],
    is_import: bool,
    found: &mut Vec<Mention>,
) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token| &token.text);
    let mut path = above.to_vec();
    let line = tokens.get(index).map_or(0, |token| token.line);
    loop {
        match text(index) {
            "{" => {
                index += 1;
                while !["}", ""].contains(&text(index)) {
                    let next = tree(tokens, index, &path, is_import, found);
                    index = if next == index || text(next) == "," { next + 1 } else { next };
                }
                return index + 1;
            }
            "*" => {
                path.push("*".to_owned());
                index += 1;
                break;
            }
            _ if tokens.get(index).is_some_and(Token::is_word) => {
                path.push(text(index).to_owned());
                index += 1;
            }
            // A turbofish.
            _ => break,
        }
        let goes_on =
            text(index) == "::" && (is_import || tokens.get(index + 1).is_some_and(Token::is_word));
        if !goes_on {
            break;
        }
        index += 1;
    }
    let mut alias = None;
    if is_import && text(index) == "as" {
        alias = Some(text(index + 1).to_owned());
        index += 2;
    }
    // `a::{self}` is `a`.
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    found.push(Mention { line, path, alias, is_import });
    index
}

#[test]
fn paths_are_found_in_every_way_of_writing_them() {
    let text = "use crate::{error::{Error, Result}, log,\n    room::Cloakroom as Room};\n\
                fn f() -> crate::Pending {} // crate::no\nuse super::super::x::*;\n\
                fn g(a: &'static str) { crate::btree::f::<u8>(\"crate::no\", 'a', r#\"\"crate::no\"#); self::h() }\n\
                pub(in crate::engine) fn i() { for x in crate::log::j {} child::k() }";
    let lines = text.lines().map(str::to_owned).collect();
    let source = Source { path: String::new(), module: String::new(), lines };
    let paths: Vec<_> = mentions(&tokens(&source))
        .into_iter()
        .map(|found| format!("{} {}", found.line, found.path.join("::")))
        .collect();
    let expected = [
        "1 crate::error::Error",
        "1 crate::error::Result",
        "1 crate::log",
        "2 crate::room::Cloakroom",
        "3 crate::Pending",
        "4 super::super::x::*",
        "5 crate::btree::f",
        "5 self::h",
        "6 crate::log::j",
        "6 child::k",
    ];
    assert_eq!(paths, expected);
}
