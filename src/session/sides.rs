//! The two sides of a session whose bytes pass, each with what goes to it, and how each is told that it is over.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::filter::UpstreamFilter;
use super::find::Visit;
use super::flow::{Flow, Outlet};
use super::life::Place;
use super::piece;
use crate::protocol::name::Action;
use crate::protocol::rtmp::amf0::Value;
use crate::protocol::rtmp::command::{self, Command, event, kind};
use crate::protocol::rtmp::joiner::OWN_CSID;
use crate::tls::Stream;

/// How long a side is listened to after our FIN, before it is reset: librtmp and OBS do not see a FIN while they send.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// The client.
pub(super) struct ClientSide {
    pub(super) action: Action,
    pub(super) stream: Stream,
    /// What goes to it.
    pub(super) flow: Flow,
    /// Message stream id as it knows it.
    pub(super) stream_id: u32,
}

/// The upstream.
pub(super) struct UpstreamSide {
    pub(super) stream: Stream,
    /// What goes to it.
    pub(super) flow: Flow,
    /// Message stream id as it knows it.
    pub(super) stream_id: u32,
    pub(super) filter: UpstreamFilter,
    pub(super) _visit: Visit,
}

impl ClientSide {
    /// Where its flow leads.
    pub(super) fn outlet<'a>(stream: &'a mut Stream, place: &'a Place) -> Outlet<'a> {
        Outlet { stream, place, traffic: &place.cell.to_client, total: &place.worker.traffic.to_client }
    }

    /// Tells the client that the stream is over, as far as a message fits in where it stands.
    pub(super) async fn end(&mut self, place: &Place, text: &str) {
        let id = self.stream_id;
        let whole = match self.action {
            Action::Play => {
                // GStreamer hears only the one, ffmpeg and librtmp only the other.
                let eof = command::user_control(event::STREAM_EOF, id);
                let unpublish = command::on_status("status", "NetStream.Play.UnpublishNotify", text).encode();
                self.flow.conclude(&[(OWN_CSID, kind::USER_CONTROL, 0, &eof), (OWN_CSID, kind::COMMAND, id, &unpublish)])
            }
            Action::Publish => {
                let failed = command::on_status("error", "NetStream.Publish.Failed", text).encode();
                self.flow.conclude(&[(OWN_CSID, kind::COMMAND, id, &failed)])
            }
        };
        if whole {
            self.finish(place).await;
        } else {
            // Inside a half-sent message only a reset is true.
            let _ = SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
        }
    }

    /// Tells the client why it is refused, where a message fits in.
    pub(super) async fn refuse(&mut self, place: &Place, code: &str, text: &str) {
        let status = command::on_status("error", code, text).encode();
        self.flow.conclude(&[(OWN_CSID, kind::COMMAND, self.stream_id, &status)]);
        self.finish(place).await;
    }

    async fn finish(&mut self, place: &Place) {
        if let Ok(Ok(())) = timeout(FAREWELL, std::future::poll_fn(|cx| self.poll_leave(cx, place))).await {
            farewell(&mut self.stream).await;
        }
    }

    fn poll_leave(&mut self, cx: &mut Context<'_>, place: &Place) -> Poll<io::Result<()>> {
        self.flow.poll_leave(cx, &mut Self::outlet(&mut self.stream, place))
    }
}

impl UpstreamSide {
    /// Where its flow leads.
    pub(super) fn outlet<'a>(stream: &'a mut Stream, place: &'a Place) -> Outlet<'a> {
        Outlet { stream, place, traffic: &place.cell.to_upstream, total: &place.worker.traffic.to_upstream }
    }

    /// Says in the client's place that the stream is over, where a message fits in; `published`: the stream's name, where it was
    /// published.
    pub(super) fn say_goodbye(&mut self, published: Option<&[u8]>) {
        let goodbye = goodbye(self.stream_id, published);
        let goodbye: Vec<(u32, u8, u32, &[u8])> =
            goodbye.iter().map(|payload| (OWN_CSID, kind::COMMAND, 0, &payload[..])).collect();
        self.flow.conclude(&goodbye);
    }

    /// Lets what may leave do so, and says that nothing more will come.
    pub(super) async fn end(&mut self, place: &Place) {
        let leave = std::future::poll_fn(|cx| self.flow.poll_leave(cx, &mut Self::outlet(&mut self.stream, place)));
        let _ = timeout(FAREWELL, leave).await;
        let _ = timeout(FAREWELL, self.stream.shutdown()).await;
    }
}

/// The commands that end a stream: `published` under this name, or played.
pub(super) fn goodbye(stream_id: u32, published: Option<&[u8]>) -> Vec<Vec<u8>> {
    let about = |command, what| Command::new(command, 0.0, vec![Value::Null, what]).encode();
    let unpublish = published.map(|name| about("FCUnpublish", Value::String(name.to_vec())));
    let delete = about("deleteStream", Value::Number(f64::from(stream_id)));
    unpublish.into_iter().chain([delete]).collect()
}

/// Half-closes, listens for a while without heeding, and leaves. A peer that still sends is then reset, which is the only thing that
/// stops some.
pub(super) async fn farewell(stream: &mut Stream) {
    let drain = async {
        let _ = stream.shutdown().await;
        while let Ok(Some(())) = piece::read(stream, |_| ()).await {}
    };
    let _ = timeout(FAREWELL, drain).await;
}
