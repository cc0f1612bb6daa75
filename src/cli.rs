//! What was asked for on the command line?

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use relay::config::{AddressError, ListenAddr};

const EXAMPLES: &str = "\
Examples:
  relay demo                              see it work, with an origin and a test stream
  relay config.json                       run with this configuration
  relay --check config.json               judge it, report every problem, run nothing
  UPSTREAM=rtmp://origin.example.com relay
                                          run without a file: every key has a variable
  relay health                            for a container's HEALTHCHECK; any URL of the relay can be asked
  relay --print-schema > relay.schema.json
                                          for an editor that completes and checks JSON

Without CONFIG, ./config.json is read if there is one. Variables win over the file; docs/CONFIGURATION.md lists both.
SIGTERM or SIGINT lets running streams end for `shutdown_timeout`; a second one ends at once.

Exit codes: 0 ended as asked, 1 failed while running, 64 wrong use, 78 wrong configuration.";

/// The front door for live video: relays RTMP and RTSP publishers and players to an origin.
#[derive(Debug, Parser)]
#[command(name = "relay", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The configuration, JSON with comments
    pub(crate) config: Option<PathBuf>,

    /// Judge the configuration and exit: 0 if it can be used, 78 if not
    #[arg(long)]
    pub(crate) check: bool,

    /// Print the JSON Schema of the configuration and exit
    #[arg(long, conflicts_with_all = ["check", "config"])]
    pub(crate) print_schema: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an origin, the relay in front of it and a test stream, and say how to publish and play
    #[command(args_conflicts_with_subcommands = true)]
    Demo {
        #[command(subcommand)]
        part: Option<Part>,
        /// Where the relay listens for clients
        #[arg(long, value_name = "ADDR", default_value = ":1935")]
        listen: ListenAddr,
        /// Where /status and /metrics answer; "" for nowhere
        #[arg(long, value_name = "ADDR", default_value = ":8080", value_parser = optional_address)]
        http: OptionalAddress,
    },
    /// Ask a running relay whether it is well, and exit: 0 if it answers 200, 1 if not
    Health {
        /// What to ask; without it, /health at the `http_addr` that `relay` would take here
        #[arg(value_name = "URL")]
        url: Option<String>,
    },
    /// Print the fingerprint that stands for a stream in logs and /status
    Fingerprint {
        /// The stream, as app/stream
        name: String,
        /// The configuration with `log.fingerprint_key`
        #[arg(long, value_name = "CONFIG")]
        config: Option<PathBuf>,
    },
}

/// One part of the demonstration, for several containers or machines.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Run the origin alone: it takes every stream, plays it to everyone, and records nothing
    Origin {
        /// Where it listens
        #[arg(long, value_name = "ADDR", default_value = ":1935")]
        listen: ListenAddr,
    },
    /// Publish the test stream, over and over
    Publisher {
        /// Where to: rtmp://host[:port]/app/stream
        #[arg(value_name = "URL")]
        url: String,
    },
}

// clap reads a bare `Option<T>` as "may be absent".
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionalAddress(pub(crate) Option<ListenAddr>);

fn optional_address(text: &str) -> Result<OptionalAddress, AddressError> {
    if text.is_empty() { Ok(OptionalAddress(None)) } else { text.parse().map(|address| OptionalAddress(Some(address))) }
}
