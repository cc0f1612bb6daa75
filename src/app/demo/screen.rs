//! The terminal: text, and one line of live figures that is refreshed in place (or, where there is no terminal, now and then).

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use crate::origin::Figures;

/// Without a terminal every so manieth refresh is a line of its own.
const EVERY: u32 = 5;
/// Back to the first column, and away with the rest of the line.
const AGAIN: &str = "\r\x1b[K";

/// See the module.
#[derive(Debug)]
pub(super) struct Screen<W> {
    out: W,
    terminal: bool,
    refreshed: u32,
}

impl Screen<Stdout> {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        let out = io::stdout();
        Self { terminal: out.is_terminal(), out, refreshed: 0 }
    }
}

impl<W: Write> Screen<W> {
    /// Writes text and an empty line behind it.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Shows `line` in place of the one before.
    pub(super) fn refresh(&mut self, line: &str) -> io::Result<()> {
        if self.terminal {
            write!(self.out, "{AGAIN}{line}")?;
        } else if self.refreshed % EVERY == EVERY - 1 {
            writeln!(self.out, "{line}")?;
        }
        self.refreshed = self.refreshed.wrapping_add(1);
        self.out.flush()
    }

    /// Leaves the cursor on a line of its own.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.terminal { writeln!(self.out) } else { Ok(()) }
    }
}

/// Bytes so far become megabits a second.
#[derive(Debug)]
pub(super) struct Rates {
    figures: Figures,
    at: Instant,
}

impl Rates {
    /// From `figures` on.
    pub(super) fn new(figures: Figures, now: Instant) -> Self {
        Self { figures, at: now }
    }

    /// The line of live figures since the last call; with what troubles the test stream.
    pub(super) fn line(&mut self, figures: Figures, now: Instant, trouble: Option<&str>) -> String {
        let elapsed = now.saturating_duration_since(self.at);
        let incoming = megabits(figures.received.saturating_sub(self.figures.received), elapsed);
        let outgoing = megabits(figures.sent.saturating_sub(self.figures.sent), elapsed);
        (self.figures, self.at) = (figures, now);
        let Figures { streams, players, .. } = figures;
        let (stream, player) = (plural(streams, "stream"), plural(players, "player"));
        let trouble = trouble.map(|why| format!(" | the test stream: {why}")).unwrap_or_default();
        format!("{stream} | {player} | {incoming:.1} Mb/s in | {outgoing:.1} Mb/s out{trouble}")
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabits(bytes: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { bytes as f64 * 8.0 / 1e6 / elapsed.as_secs_f64() }
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool, refreshes: u32) -> String {
        let mut screen = Screen { out: Vec::new(), terminal, refreshed: 0 };
        screen.say("hello").expect("a Vec takes everything");
        for n in 1..=refreshes {
            screen.refresh(&n.to_string()).expect("a Vec takes everything");
        }
        screen.end().expect("a Vec takes everything");
        String::from_utf8(screen.out).expect("we write text")
    }

    #[test]
    fn a_terminal_sees_one_line_that_changes() {
        assert_eq!(shown(true, 2), "hello\n\r\x1b[K1\r\x1b[K2\n");
    }

    #[test]
    fn a_file_gets_a_line_now_and_then() {
        assert_eq!(shown(false, 12), "hello\n5\n10\n");
    }

    #[test]
    fn figures_are_those_since_the_last_line() {
        let start = Instant::now();
        let mut rates = Rates::new(Figures::default(), start);
        let figures = Figures { streams: 1, players: 2, received: 125_000, sent: 250_000 };
        let second = Duration::from_secs(1);
        assert_eq!(rates.line(figures, start + second, None), "1 stream | 2 players | 1.0 Mb/s in | 2.0 Mb/s out");
        let still = rates.line(figures, start + 2 * second, Some("refused: why"));
        assert_eq!(still, "1 stream | 2 players | 0.0 Mb/s in | 0.0 Mb/s out | the test stream: refused: why");
        assert!(rates.line(figures, start + 2 * second, None).contains("0.0 Mb/s"), "no time has passed");
    }
}
