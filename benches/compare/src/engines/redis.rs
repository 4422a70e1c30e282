//! Redis over loopback, `appendfsync always`, one script per consume. Its server is a process of
//! its own, which shares one flush among whatever the connections sent meanwhile.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{PURPOSE, SUBJECT, Tokens, now};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROGRAM: &str = "redis-server";

const CONSUME: &[u8] = b"local t = redis.call('HMGET', KEYS[1], 's', 'p', 'e', 'c') \
    if t[1] == ARGV[2] and t[2] == ARGV[3] and not t[4] and tonumber(t[3]) > tonumber(ARGV[1]) then \
    redis.call('HSET', KEYS[1], 'c', ARGV[1]) return 1 end return 0";

/// Whether there is a server to compare with.
pub fn is_installed() -> bool {
    Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A running server, which is stopped when this is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(dir: &Path) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = Command::new(PROGRAM)
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", "", "--dir"])
            .arg(dir)
            .args(["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"])
            .stdout(Stdio::null())
            .spawn()
            .context("starting redis-server")?;
        let server = Self { process, address };
        let started = Instant::now();
        loop {
            let ready = Client::connect(server.address).and_then(|mut client| {
                client.send(&[b"PING"])?;
                client.flush()?;
                client.reply()
            });
            match ready {
                Ok(_) => return Ok(server),
                Err(error) if started.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    input: BufReader<TcpStream>,
    output: BufWriter<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { input: BufReader::new(stream.try_clone()?), output: BufWriter::new(stream) })
    }

    fn send(&mut self, words: &[&[u8]]) -> Result<()> {
        write!(self.output, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.output, "${}\r\n", word.len())?;
            self.output.write_all(word)?;
            self.output.write_all(b"\r\n")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.output.flush()?)
    }

    /// A reply that is one value; `None` when it is the null value.
    fn reply(&mut self) -> Result<Option<String>> {
        let line = self.line()?;
        match line.split_at_checked(1) {
            Some(("+" | ":", value)) => Ok(Some(value.to_owned())),
            Some(("$", "-1")) => Ok(None),
            Some(("$", _)) => Ok(Some(self.line()?)),
            _ => bail!("redis-server answered {line:?}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.input.read_line(&mut line)? > 0, "redis-server closed the connection");
        Ok(line.trim_end().to_owned())
    }

    fn ask_consume(&mut self, script: &[u8], key: &[u8]) -> Result<()> {
        let now = now().to_string();
        self.send(&[b"EVALSHA", script, b"1", key, now.as_bytes(), SUBJECT.as_bytes(), PURPOSE.as_bytes()])
    }
}

pub struct Redis {
    dir: PathBuf,
    server: Server,
    tokens: Arc<Tokens>,
    script: Arc<str>,
}

impl Redis {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>) -> Result<Self> {
        let server = Server::start(dir)?;
        let mut client = Client::connect(server.address)?;
        let expires_at = tokens.expires_at.to_string();
        for batch in tokens.keys().chunks(super::PRELOAD_BATCH) {
            for key in batch {
                let (subject, purpose) = (SUBJECT.as_bytes(), PURPOSE.as_bytes());
                client.send(&[b"HSET", key, b"s", subject, b"p", purpose, b"e", expires_at.as_bytes()])?;
            }
            client.flush()?;
            for _ in batch {
                client.reply()?;
            }
        }
        client.send(&[b"SCRIPT", b"LOAD", CONSUME])?;
        client.flush()?;
        let script = client.reply()?.context("the script has no name")?.into();
        Ok(Self { dir: dir.to_path_buf(), server, tokens: Arc::clone(tokens), script })
    }
}

impl Store for Redis {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let mut client = Client::connect(self.server.address)?;
        Ok(Box::new(OneByOne(move |token| {
            client.ask_consume(self.script.as_bytes(), self.tokens.key(token))?;
            client.flush()?;
            Ok(client.reply()?.as_deref() == Some("1"))
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        let (tokens, script) = (Arc::clone(&self.tokens), Arc::clone(&self.script));
        Ok(Box::new(Grouping { client: Client::connect(self.server.address)?, tokens, script }))
    }

    fn finish(self) -> Result<Vec<bool>> {
        // Killed, not asked to stop: what it acknowledged must be in its file.
        drop(self.server);
        let server = Server::start(&self.dir)?;
        let mut client = Client::connect(server.address)?;
        let mut consumed = Vec::with_capacity(self.tokens.len());
        for batch in self.tokens.keys().chunks(super::PRELOAD_BATCH) {
            for key in batch {
                client.send(&[b"HGET", key, b"c"])?;
            }
            client.flush()?;
            for _ in batch {
                consumed.push(client.reply()?.is_some());
            }
        }
        Ok(consumed)
    }
}

struct Grouping {
    client: Client,
    tokens: Arc<Tokens>,
    script: Arc<str>,
}

impl Batch for Grouping {
    fn consume(&mut self, tokens: &[u32]) -> Result<Vec<bool>> {
        for &token in tokens {
            self.client.ask_consume(self.script.as_bytes(), self.tokens.key(token))?;
        }
        self.client.flush()?;
        tokens.iter().map(|_| Ok(self.client.reply()?.as_deref() == Some("1"))).collect()
    }
}
