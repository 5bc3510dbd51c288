//! A link that can be cut after any byte, and that can stall: a TCP proxy in front of one of the cloud's ports.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Bytes, of both directions together, until everything is cut.
    left: Option<usize>,
    stalled: bool,
    open: Vec<TcpStream>,
    connections: usize,
}

impl Proxy {
    /// In front of `host:port`, for as long as the process lives.
    pub fn to(server: &str) -> Self {
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&proxy.state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let mut locked = lock(&state);
                locked.connections += 1;
                locked.open.retain(|stream| stream.take_error().is_ok_and(|error| error.is_none()));
                let ends = [(&client, &server), (&server, &client)];
                locked.open.extend(ends.map(|(end, _)| end.try_clone().unwrap()));
                for (from, to) in ends {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || carry(from, to, &state));
                }
            }
        });
        proxy
    }

    pub fn cut(&self) {
        lock(&self.state).cut();
    }

    /// Cuts when this many bytes more have passed.
    pub fn cut_after(&self, bytes: usize) {
        lock(&self.state).left = Some(bytes);
    }

    /// Whether a `cut_after` is still to come.
    pub fn cut_is_due(&self) -> bool {
        lock(&self.state).left.is_some()
    }

    /// Nothing passes, and nothing is said about it.
    pub fn stall(&self, stalled: bool) {
        lock(&self.state).stalled = stalled;
    }

    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }
}

impl State {
    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

/// One direction of one connection, to its end.
fn carry(mut from: TcpStream, mut to: TcpStream, state: &Mutex<State>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        while lock(state).stalled {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut locked = lock(state);
        let allowed = locked.left.map_or(read, |left| left.min(read));
        let written = to.write_all(&buffer[..allowed]);
        if let Some(left) = &mut locked.left {
            *left -= allowed;
            if *left == 0 {
                locked.left = None;
                locked.cut();
            }
        }
        if written.is_err() || allowed < read {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
