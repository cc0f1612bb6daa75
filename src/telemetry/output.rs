//! Where log lines go: a stream or a file, written on a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::LogOutput;

/// A file is looked for at its path at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the writer's thread and the rest of the program tell each other.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The file is to be opened again.
    pub(super) reopen: AtomicBool,
    /// Lines that the output did not take.
    pub(super) lost: AtomicU64,
}

/// Writes whole lines; one that fails is counted and given up, for there is nobody who could be told.
pub(super) struct Output {
    sink: Sink,
    signals: Arc<Signals>,
    /// A line was cut off by an error: the next one must not stick to it.
    torn: bool,
}

enum Sink {
    Stream(Box<dyn Write + Send>),
    File(LogFile),
}

impl Output {
    /// Opens the output.
    pub(super) fn open(output: &LogOutput, signals: Arc<Signals>) -> io::Result<Self> {
        let sink = match output {
            LogOutput::Stderr => Sink::Stream(Box::new(io::stderr())),
            LogOutput::Stdout => Sink::Stream(Box::new(io::stdout())),
            LogOutput::Path(path) => Sink::File(LogFile::open(path)?),
        };
        Ok(Self { sink, signals, torn: false })
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.put_all(b"\n")?;
            self.torn = false;
        }
        self.put_all(line)
    }

    fn put_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sink: &mut dyn Write = match &mut self.sink {
                Sink::Stream(stream) => stream,
                Sink::File(file) => &mut file.file,
            };
            match sink.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Sink::File(file) = &mut self.sink {
            let asked = self.signals.reopen.swap(false, Relaxed);
            if file.follow(asked, Instant::now()) {
                self.torn = false;
            }
        }
        if self.put(line).is_err() {
            self.signals.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            // Without a listener there is nothing to flush, and an error would only be printed there.
            Sink::Stream(stream) => stream.flush().or(Ok(())),
            Sink::File(_) => Ok(()),
        }
    }
}

/// A file that is opened again when it is no longer the one at its path: whoever rotates logs moves it away.
struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, looked: Instant::now() })
    }

    /// Opens the file again where it was moved, or where that was asked for; says whether it did. When it cannot be opened,
    /// the old one stays.
    fn follow(&mut self, asked: bool, now: Instant) -> bool {
        if !asked && now.saturating_duration_since(self.looked) < LOOK_EVERY {
            return false;
        }
        self.looked = now;
        if !asked && self.is_at_its_path() {
            return false;
        }
        match append(&self.path) {
            Ok(file) => {
                self.file = file;
                true
            }
            Err(_) => false,
        }
    }

    fn is_at_its_path(&self) -> bool {
        let id = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        matches!((self.file.metadata(), std::fs::metadata(&self.path)), (Ok(ours), Ok(there)) if id(&ours) == id(&there))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_file_that_was_moved_is_opened_again_within_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("relay.log"), dir.path().join("relay.log.1"));
        let mut file = LogFile::open(&path).unwrap();
        let now = file.looked;
        std::fs::rename(&path, &moved).unwrap();
        assert!(!file.follow(false, now + LOOK_EVERY / 2), "not looked for yet");
        assert!(file.follow(false, now + LOOK_EVERY));
        assert!(path.exists());
        assert!(!file.follow(false, now + 2 * LOOK_EVERY), "it is where it should be");
    }

    #[test]
    fn a_reopen_that_was_asked_for_happens_at_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("relay.log"), dir.path().join("relay.log.1"));
        let signals = Arc::new(Signals::default());
        let mut output = Output::open(&LogOutput::Path(path.clone()), Arc::clone(&signals)).unwrap();
        output.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        signals.reopen.store(true, Relaxed);
        output.write_all(b"two\n").unwrap();
        assert_eq!((read(&moved).as_str(), read(&path).as_str()), ("one\n", "two\n"));
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let signals = Arc::new(Signals::default());
        let full = LogOutput::Path("/dev/full".into());
        let mut output = Output::open(&full, Arc::clone(&signals)).unwrap();
        for _ in 0..3 {
            output.write_all(b"a line\n").unwrap();
        }
        assert_eq!(signals.lost.load(Relaxed), 3);
    }

    #[test]
    fn a_line_after_a_torn_one_begins_on_a_line_of_its_own() {
        /// Takes three bytes, then fails once, then takes all.
        struct Moody(Arc<std::sync::Mutex<Vec<u8>>>, u32);
        impl Write for Moody {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                let taken = match self.1 {
                    1 => 3,
                    2 => return Err(io::ErrorKind::StorageFull.into()),
                    _ => bytes.len(),
                };
                self.0.lock().unwrap().extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, signals) = (Arc::default(), Arc::new(Signals::default()));
        let sink = Sink::Stream(Box::new(Moody(Arc::clone(&written), 0)));
        let mut output = Output { sink, signals, torn: false };
        output.write_all(b"first\n").unwrap();
        output.write_all(b"second\n").unwrap();
        assert_eq!(written.lock().unwrap().as_slice(), b"fir\nsecond\n");
    }
}
