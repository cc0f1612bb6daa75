//! A session before its bytes pass: the server of the client, then a client of the origin.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use relay::protocol::name::Names;
use relay::protocol::rtmp::client::{Answer, ClientSession};
use relay::protocol::rtmp::joiner::{Joiner, Start, StreamIds};
use relay::protocol::rtmp::replay::Renamer;
use relay::protocol::rtmp::server::{Progress, Request, ServerSession};

use super::follow::Follow;
use super::leg::Leg;

/// See the module.
pub struct Speaking {
    client: TcpStream,
    server: ServerSession,
    request: Option<Box<Request>>,
    origin: Option<(TcpStream, ClientSession)>,
    connected: Connected,
    agreed: bool,
}

#[derive(PartialEq)]
enum Connected {
    NotYet,
    Just,
    Long,
}

impl Speaking {
    /// With a client that has said nothing.
    pub fn new(client: TcpStream) -> Self {
        let server = ServerSession::new(&mut |bytes| rand::fill(bytes));
        Self { client, server, request: None, origin: None, connected: Connected::NotYet, agreed: false }
    }

    /// Hears the client (`side` 0) or the origin. Whether the client has just asked for something.
    pub fn step(&mut self, side: usize, buffer: &mut [u8]) -> io::Result<bool> {
        if side == 0 {
            let read = read(&mut self.client, buffer)?;
            let progress = self.server.handle_input(&buffer[..read]).map_err(io::Error::other)?;
            self.client.write_all(&self.server.take_output())?;
            if let Progress::Requested(request) = progress {
                self.request = Some(request);
                return Ok(true);
            }
            return Ok(false);
        }
        let Some((origin, session)) = &mut self.origin else { return Ok(false) };
        if self.connected == Connected::NotYet {
            self.connected = Connected::Just;
            origin.write_all(&session.take_output())?;
            return Ok(false);
        }
        let read = read(origin, buffer)?;
        let answer = session.handle_input(&buffer[..read]).map_err(io::Error::other)?;
        origin.write_all(&session.take_output())?;
        self.agreed = answer == Answer::Started;
        Ok(false)
    }

    /// The origin is being connected to.
    pub fn dial(&mut self, origin: TcpStream) {
        let Some(request) = &self.request else { return };
        let names = Names { app: b"live".to_vec(), stream: request.stream.clone(), tc_url: request.tc_url.clone() };
        let script = Renamer::new(request, names, true).replay(request);
        self.origin = Some((origin, ClientSession::new(script, request.stream_id, &mut |bytes| rand::fill(bytes))));
    }

    /// The origin, when it has been connected to and not been told of before.
    pub fn just_connected(&mut self) -> Option<&TcpStream> {
        if self.connected != Connected::Just {
            return None;
        }
        self.connected = Connected::Long;
        self.origin.as_ref().map(|(origin, _)| origin)
    }

    /// Whether the origin has said yes.
    pub fn agreed(&self) -> bool {
        self.agreed
    }

    /// Tells the client, and joins the two chunk streams. What was read behind the commands stands beside.
    pub fn join(self) -> (Box<[Leg; 2]>, [Vec<u8>; 2]) {
        let Self { mut client, mut server, origin, .. } = self;
        let (origin, mut session) = origin.expect("somebody agreed");
        session.take_forward().iter().for_each(|message| server.forward(message));
        let _ = client.write_all(&server.take_output());
        let (server, origin_parts) = (server.into_parts(), session.into_parts());
        let StreamIds { from, to } = origin_parts.stream_ids;
        let up = Start {
            sender: server.sender,
            chunk_size: origin_parts.writer.chunk_size(),
            seen: origin_parts.writer.into_seen(),
            stream_ids: StreamIds { from, to },
        };
        let down = Start {
            sender: origin_parts.sender,
            chunk_size: server.writer.chunk_size(),
            seen: server.writer.into_seen(),
            stream_ids: StreamIds { from: to, to: from },
        };
        let joined = |start| Follow::Joined(Box::new(Joiner::new(start)));
        let legs = [Leg::new(client, joined(up)), Leg::new(origin, joined(down))];
        (Box::new(legs), [server.rest, origin_parts.rest])
    }
}

/// What is there; an error at the end.
fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match socket.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
        read => read,
    }
}
