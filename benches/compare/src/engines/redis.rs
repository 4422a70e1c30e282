//! Redis over loopback, `appendfsync always`, one script per operation. Its server is a process of
//! its own, which shares one flush among whatever the connections sent meanwhile.

use super::{Batch, OneByOne, Store};
use crate::contest::Session;
use crate::tokens::{PURPOSE, SUBJECT, Tokens, now};
use crate::work::{Op, Request, State};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROGRAM: &str = "redis-server";

/// A token whose life is over disappears by itself.
const INSERT: &[u8] = b"redis.call('HSET', KEYS[1], 's', ARGV[2], 'p', ARGV[3], 'e', ARGV[1]) \
    return redis.call('EXPIREAT', KEYS[1], ARGV[1])";

const CONSUME: &[u8] = b"local t = redis.call('HMGET', KEYS[1], 's', 'p', 'e', 'c') \
    if t[1] == ARGV[2] and t[2] == ARGV[3] and not t[4] and tonumber(t[3]) > tonumber(ARGV[1]) \
    then redis.call('HSET', KEYS[1], 'c', ARGV[1]) return 1 end return 0";

/// The names by which the server knows the scripts.
struct Scripts {
    insert: String,
    consume: String,
}

/// Whether there is a server to compare with.
pub fn is_installed() -> bool {
    Command::new(PROGRAM)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
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
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &address.port().to_string(),
                "--save",
                "",
                "--dir",
            ])
            .arg(dir)
            .args([
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--auto-aof-rewrite-percentage",
                "0",
            ])
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

    fn load(&mut self, script: &[u8]) -> Result<String> {
        self.send(&[b"SCRIPT", b"LOAD", script])?;
        self.flush()?;
        self.reply()?.context("the script has no name")
    }

    fn ask(&mut self, scripts: &Scripts, tokens: &Tokens, request: Request) -> Result<()> {
        let key = &tokens.key(request.token)[..];
        let (script, time) = match request.op {
            Op::Insert { ends } => (&scripts.insert, ends),
            Op::Consume => (&scripts.consume, now()),
            Op::Remove => return self.send(&[b"DEL", key]),
        };
        let (script, time) = (script.as_bytes(), time.to_string());
        let (subject, purpose) = (SUBJECT.as_bytes(), PURPOSE.as_bytes());
        self.send(&[b"EVALSHA", script, b"1", key, time.as_bytes(), subject, purpose])
    }

    /// Whether the oldest request without an answer was granted.
    fn granted(&mut self) -> Result<bool> {
        Ok(self.reply()?.as_deref() == Some("1"))
    }
}

pub struct Redis {
    dir: PathBuf,
    server: Server,
    tokens: Arc<Tokens>,
    scripts: Arc<Scripts>,
}

impl Redis {
    pub fn create(dir: &Path, tokens: &Arc<Tokens>) -> Result<Self> {
        let server = Server::start(dir)?;
        let mut client = Client::connect(server.address)?;
        let (keys, ends) = tokens.preloaded();
        let ends = ends.to_string();
        for batch in keys.chunks(super::PRELOAD_BATCH) {
            for key in batch {
                let (subject, purpose) = (SUBJECT.as_bytes(), PURPOSE.as_bytes());
                client.send(&[
                    b"HSET",
                    key,
                    b"s",
                    subject,
                    b"p",
                    purpose,
                    b"e",
                    ends.as_bytes(),
                ])?;
            }
            client.flush()?;
            for _ in batch {
                client.reply()?;
            }
        }
        let scripts = Scripts { insert: client.load(INSERT)?, consume: client.load(CONSUME)? };
        let (tokens, scripts) = (Arc::clone(tokens), Arc::new(scripts));
        Ok(Self { dir: dir.to_path_buf(), server, tokens, scripts })
    }
}

impl Store for Redis {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let mut client = Client::connect(self.server.address)?;
        Ok(Box::new(OneByOne(move |request| {
            client.ask(&self.scripts, &self.tokens, request)?;
            client.flush()?;
            client.granted()
        })))
    }

    fn batch(&self) -> Result<Box<dyn Batch>> {
        let (tokens, scripts) = (Arc::clone(&self.tokens), Arc::clone(&self.scripts));
        Ok(Box::new(Grouping { client: Client::connect(self.server.address)?, tokens, scripts }))
    }

    fn expires(&self) -> bool {
        true
    }

    fn server(&self) -> Option<u32> {
        Some(self.server.process.id())
    }

    fn finish(self) -> Result<Vec<State>> {
        // Killed, not asked to stop: what it acknowledged must be in its file.
        drop(self.server);
        let server = Server::start(&self.dir)?;
        let mut client = Client::connect(server.address)?;
        let mut states = Vec::with_capacity(self.tokens.len());
        for batch in self.tokens.keys().chunks(super::PRELOAD_BATCH) {
            for key in batch {
                client.send(&[b"EXISTS", key])?;
                client.send(&[b"HGET", key, b"c"])?;
            }
            client.flush()?;
            for _ in batch {
                let (is_there, is_consumed) = (client.granted()?, client.reply()?.is_some());
                states.push(if is_there { State::stored(is_consumed) } else { State::Absent });
            }
        }
        Ok(states)
    }
}

struct Grouping {
    client: Client,
    tokens: Arc<Tokens>,
    scripts: Arc<Scripts>,
}

impl Batch for Grouping {
    fn run(&mut self, requests: &[Request]) -> Result<Vec<bool>> {
        for &request in requests {
            self.client.ask(&self.scripts, &self.tokens, request)?;
        }
        self.client.flush()?;
        requests.iter().map(|_| self.client.granted()).collect()
    }
}
