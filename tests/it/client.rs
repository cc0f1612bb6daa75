//! A client in its own bytes: it says exactly what the test tells it to, and hears everything.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::amf::{self, Amf, n, obj, s};
use crate::ear::{self, Ear, End, HANDSHAKE};
use crate::parser::{Message, kind};
use crate::relay::Face;
use crate::speech::{Say, set_chunk_size};

/// C0, C1 and C2 of a client that does not wait. The relay, as every server but Flash's own, does not judge C2.
pub(crate) fn hello() -> Vec<u8> {
    let mut hello = vec![0; HANDSHAKE];
    hello[0] = 3;
    hello
}

/// See the module.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    pub(crate) ear: Ear,
    /// Of what it says.
    pub(crate) chunk_size: usize,
    address: SocketAddr,
    transaction: f64,
}

impl Client {
    /// Connects; says nothing yet.
    pub(crate) fn to(relay: &Face) -> Self {
        Self::over(TcpStream::connect(relay.address).expect("the relay accepts"))
    }

    /// Over a socket that was prepared.
    pub(crate) fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("a socket takes no-delay");
        let ear = Ear::listen(socket.try_clone().expect("a socket can be cloned"), |_| ());
        let address = socket.local_addr().expect("a connected socket has an address");
        Self { socket, ear, chunk_size: 128, address, transaction: 0.0 }
    }

    /// Connects and says hello.
    pub(crate) fn hello(relay: &Face) -> Self {
        let mut client = Self::to(relay);
        client.write(&hello());
        client
    }

    /// Its own address, by which the relay's log names it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends bytes. That the relay has ended meanwhile is for the test to see by what it hears.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.try_write(bytes);
    }

    /// Sends bytes.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Says a message with a full header.
    pub(crate) fn say(&mut self, csid: u32, time: u32, kind: u8, stream: u32, body: &[u8]) -> Message {
        let bytes = Say::full(csid, time, kind, stream, body).bytes(self.chunk_size);
        self.write(&bytes);
        Message { csid, time, kind, stream, body: body.to_vec(), fmt: 0, end: 0 }
    }

    /// From now on its chunks are so long.
    pub(crate) fn set_chunk_size(&mut self, size: u32) {
        self.write(&set_chunk_size(size));
        self.chunk_size = size as usize;
    }

    /// Says a command with the next transaction id.
    pub(crate) fn command(&mut self, csid: u32, stream: u32, name: &str, args: &[Amf]) -> Message {
        self.transaction += 1.0;
        self.say(csid, 0, kind::COMMAND, stream, &amf::command(name, self.transaction, args))
    }

    /// Says connect.
    pub(crate) fn connect(&mut self, app: &str) -> &mut Self {
        let object = obj(&[("app", s(app)), ("type", s("nonprivate")), ("tcUrl", s(&format!("rtmp://relay.test/{app}")))]);
        self.command(3, 0, "connect", &[object]);
        self
    }

    /// Says createStream.
    pub(crate) fn create_stream(&mut self) -> &mut Self {
        self.command(3, 0, "createStream", &[Amf::Null]);
        self
    }

    /// Says publish, on message stream 1.
    pub(crate) fn publish(&mut self, stream: &str) -> &mut Self {
        self.command(8, 1, "publish", &[Amf::Null, s(stream), s("live")]);
        self
    }

    /// Says play, on message stream 1.
    pub(crate) fn play(&mut self, stream: &str) -> &mut Self {
        self.command(8, 1, "play", &[Amf::Null, s(stream), n(-2000)]);
        self
    }

    /// Everything from hello to publish in one go, as no real client does, without waiting for an answer.
    pub(crate) fn asking_to_publish(relay: &Face, app: &str, stream: &str) -> Self {
        let mut client = Self::hello(relay);
        client.connect(app).create_stream().publish(stream);
        client
    }

    /// The same to play.
    pub(crate) fn asking_to_play(relay: &Face, app: &str, stream: &str) -> Self {
        let mut client = Self::hello(relay);
        client.connect(app).create_stream().play(stream);
        client
    }

    /// A publisher that was let in.
    pub(crate) fn publishing(relay: &Face, app: &str, stream: &str) -> Self {
        let client = Self::asking_to_publish(relay, app, stream);
        client.started();
        client
    }

    /// A player that was let in.
    pub(crate) fn playing(relay: &Face, app: &str, stream: &str) -> Self {
        let client = Self::asking_to_play(relay, app, stream);
        client.started();
        client
    }

    /// Waits until it may begin.
    pub(crate) fn started(&self) {
        let (code, text) = self.told();
        assert!(code == "NetStream.Publish.Start" || code == "NetStream.Play.Start", "refused with {code}: {text}");
    }

    /// What the first `onStatus` or `_error` tells: (code, description).
    pub(crate) fn told(&self) -> (String, String) {
        self.ear.wait("the client is told something", |record| {
            assert!(record.end.is_none() || record.told().is_some(), "the relay ended without a word: {:?}", record.end);
            record.told()
        })
    }

    /// Waits until it is refused and the relay has closed; (code, description).
    pub(crate) fn refused(&mut self) -> (String, String) {
        let told = self.told();
        self.leave();
        self.ear.wait_end();
        told
    }

    /// Says that nothing more will come.
    pub(crate) fn leave(&mut self) {
        // Fails where the relay was faster.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Leaves with a reset.
    pub(crate) fn reset(self) {
        ear::reset(self.socket, &self.ear);
    }

    /// Waits for the relay to end the connection, meanwhile refusing nothing.
    pub(crate) fn ended(&self) -> End {
        self.ear.wait_end()
    }
}
