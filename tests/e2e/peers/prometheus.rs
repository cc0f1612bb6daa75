//! Prometheus as the project sets it up: its own configuration and alert rules, only faster and on a free port.

use std::fs;
use std::path::Path;
use std::process::Command;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::process::{Running, workdir};
use crate::wait::{SOON, wait_for};

/// A running Prometheus.
pub struct Prometheus {
    address: String,
    _process: Running,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one that asks the relay whose HTTP is at `relay` once a second.
    pub fn watching(relay: &str) -> Self {
        let dir = workdir("prometheus");
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus");
        let mut config = fs::read_to_string(project.join("prometheus.yml")).expect("prometheus/prometheus.yml");
        // Itself it need not ask: nobody knows its port yet.
        let changes = [
            ("relay:8080", relay),
            ("localhost:9090", "127.0.0.1:9"),
            ("_interval: 15s", "_interval: 1s"),
            ("timeout: 10s", "timeout: 1s"),
        ];
        for (from, to) in changes {
            assert!(config.contains(from), "prometheus.yml no longer says {from}");
            config = config.replace(from, to);
        }
        fs::write(dir.path().join("prometheus.yml"), config).expect("a fresh directory takes a file");
        fs::copy(project.join("alerts.yml"), dir.path().join("alerts.yml")).expect("prometheus/alerts.yml");
        let mut command = Command::new("prometheus");
        command.current_dir(dir.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg("--web.listen-address=127.0.0.1:0");
        let mut process = Running::start("prometheus", &mut command, dir.path());
        let address = wait_for("Prometheus says where it listens", SOON, || {
            assert!(process.exited().is_none(), "Prometheus ended at once:\n{}", process.output());
            let said = process.output();
            let line = said.lines().find(|line| line.contains("msg=\"Listening on\""))?;
            Some(line.split("address=").nth(1)?.split_whitespace().next()?.to_owned())
        });
        wait_for("Prometheus is ready", SOON, || http::get(&address, "/-/ready").ok());
        Self { address, _process: process, _dir: dir }
    }

    /// What `path` of its API answers.
    ///
    /// # Errors
    /// What it says is wrong.
    pub fn api(&self, path: &str) -> Result<Value, String> {
        let body = http::get(&self.address, &format!("/api/v1/{path}")).map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer["error"].to_string()) }
    }

    /// The values that `expression` has now, one a series.
    ///
    /// # Errors
    /// As [`Self::api`].
    pub fn ask(&self, expression: &str) -> Result<Vec<f64>, String> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.api(&format!("query?query={encoded}"))?;
        let rows = data["result"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().filter_map(|row| row["value"][1].as_str()?.parse().ok()).collect())
    }
}
