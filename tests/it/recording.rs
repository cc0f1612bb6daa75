//! Recordings of real clients and nginx-rtmp: `tests/golden` holds one a file, named by who sent it, one JSON line a segment,
//! `[seconds, "C" | "S", hex or "FIN"]`. Shared by the tests and the benchmarks.

use std::fs;
use std::path::Path;

/// What both sides said, with their handshakes.
pub struct Recording {
    /// The file, without its extension.
    pub name: String,
    /// The client's bytes.
    pub client: Vec<u8>,
    /// The server's bytes.
    pub server: Vec<u8>,
}

/// All of RTMP, in the order of their names.
pub fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let paths = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry").path());
    let is_rtmp = |path: &Path| path.extension().is_some_and(|e| e == "jsonl") && !path.to_string_lossy().contains("-rtsp-");
    let mut found: Vec<_> = paths.filter(|path| is_rtmp(path)).collect();
    found.sort();
    assert!(found.len() >= 12, "the recordings are there");
    found.iter().map(|path| recording(path)).collect()
}

fn recording(path: &Path) -> Recording {
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for line in fs::read_to_string(path).expect("a text").lines() {
        let (_, side, hex): (f64, String, String) = serde_json::from_str(line).expect("a segment");
        if hex != "FIN" {
            let bytes = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"));
            if side == "C" { client.extend(bytes) } else { server.extend(bytes) }
        }
    }
    Recording { name, client, server }
}
