//! One thread that sends segments at their times and receives everything: all streams of a run.
//!
//! While streams flow it never sleeps. It has a core of its own, and a receiver that is awake already costs the target no wake, as a remote
//! one would not; a segment leaves within some µs of its time however many streams there are. With `--sleepy` it sleeps between events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::gauges::Gauges;
use super::sink::Sink;
use super::stream::{Next, Source, Stream};

/// Longest sleep, µs: orders are looked for that often.
const REST: u64 = 5_000;
/// Segments sent before the sockets are looked at again.
const BURST: usize = 32;
/// Tokens of streams begin here, those of sinks at 0.
const STREAMS: u64 = 1 << 32;

/// What the engine is to do.
pub enum Order {
    /// A stream to send.
    Send(Source),
    /// A stream to receive.
    Receive(Sink),
}

/// See the module.
pub struct Engine {
    gauges: Arc<Gauges>,
    sleepy: bool,
    epoll: OwnedFd,
    streams: Vec<Stream>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    parked: Vec<usize>,
    active: usize,
    sinks: Vec<Option<Sink>>,
    buffer: Vec<u8>,
}

impl Engine {
    /// Without a stream.
    pub fn new(gauges: Arc<Gauges>, sleepy: bool) -> io::Result<Self> {
        Ok(Self {
            gauges,
            sleepy,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            streams: Vec::new(),
            due: BinaryHeap::new(),
            parked: Vec::new(),
            active: 0,
            sinks: Vec::new(),
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Works until the end of the run.
    pub fn run(mut self, orders: &Receiver<Order>) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        while !self.gauges.end.load(Relaxed) {
            while let Ok(order) = orders.try_recv() {
                self.take(order)?;
            }
            self.unpark();
            let rest = self.send_due();
            self.look(rest, &mut events)?;
        }
        Ok(())
    }

    fn take(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Send(source) => {
                let stream = Stream::new(source);
                let number = self.streams.len();
                if stream.is_paced() {
                    self.parked.push(number);
                } else {
                    let token = epoll::EventData::new_u64(STREAMS + number as u64);
                    epoll::add(&self.epoll, stream.socket(), token, epoll::EventFlags::OUT)?;
                }
                self.streams.push(stream);
                self.gauges.sources.store(self.streams.len(), Relaxed);
            }
            Order::Receive(sink) => {
                let token = epoll::EventData::new_u64(self.sinks.len() as u64);
                epoll::add(&self.epoll, sink.socket(), token, epoll::EventFlags::IN)?;
                self.sinks.push(Some(sink));
                self.gauges.sinks.store(self.sinks.len(), Relaxed);
            }
        }
        Ok(())
    }

    /// Lets streams flow that are to.
    fn unpark(&mut self) {
        let active = self.gauges.active.load(Relaxed);
        if active == self.active && self.parked.iter().all(|number| *number >= active) {
            return;
        }
        self.active = active;
        let now = self.gauges.now_us();
        for number in std::mem::take(&mut self.parked) {
            if number < active {
                let at = self.streams[number].restart(now, number as u64);
                self.due.push(Reverse((at, number)));
            } else {
                self.parked.push(number);
            }
        }
    }

    /// Sends what is due; µs until there is more.
    fn send_due(&mut self) -> u64 {
        for _ in 0..BURST {
            let Some(&Reverse((at, number))) = self.due.peek() else { return REST };
            let now = self.gauges.now_us();
            if at > now {
                return (at - now).min(REST);
            }
            self.due.pop();
            match self.streams[number].send(at, &self.gauges) {
                Next::At(next) => self.due.push(Reverse((next, number))),
                Next::Whole(next) if number < self.active => self.due.push(Reverse((next.max(at), number))),
                Next::Whole(_) => self.parked.push(number),
                Next::End => {}
            }
        }
        0
    }

    /// Looks at the sockets, for `rest` µs where the engine may sleep.
    fn look(&mut self, rest: u64, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let flowing = self.active > 0 && !self.streams.is_empty();
        let rest = if flowing && !self.sleepy { 0 } else { rest };
        let timeout = Timespec { tv_sec: 0, tv_nsec: (rest * 1000).cast_signed() };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        events.drain(..).try_for_each(|event| self.serve(event.data.u64()))
    }

    fn serve(&mut self, token: u64) -> io::Result<()> {
        if let Some(number) = token.checked_sub(STREAMS) {
            let stream = &mut self.streams[number as usize];
            if !stream.pour() {
                epoll::delete(&self.epoll, stream.socket())?;
            }
            return Ok(());
        }
        let place = &mut self.sinks[token as usize];
        if place.as_mut().is_some_and(|sink| !sink.read(&mut self.buffer, &self.gauges)) {
            *place = None;
        }
        Ok(())
    }
}
