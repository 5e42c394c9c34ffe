//! The exporter's command line: parse, bind, run, end.
//!
//! Ends with 0 after SIGTERM or SIGINT, 1 when it could not start, 2 for a configuration that is wrong. The address is
//! printed on standard output as `listening on IP:PORT`, logs go to standard error. An operator's order is carried out in place of
//! running; it has the same three codes, with a meaning of its own.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use spool_lock_exporter::{CommandLine, Config, Order, serve};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let config = match CommandLine::parse(std::env::args_os()) {
        Ok(CommandLine::Run(config)) => config,
        Ok(CommandLine::Check(_)) => {
            say("the configuration is good\n");
            return ExitCode::SUCCESS;
        }
        Ok(CommandLine::Operate(order)) => return obey(&order),
        Ok(CommandLine::Show(text)) => {
            say(text);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            complain(error);
            return ExitCode::from(2);
        }
    };
    log_to_stderr(config.log_level);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

// One thread is enough for a page each few seconds, and small beside the service that it watches.
#[tokio::main(flavor = "current_thread")]
async fn run(config: Config) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cannot_listen = |error| io::Error::other(format!("cannot listen on {}: {error}", config.listen));
    let listener = TcpListener::bind(config.listen).await.map_err(cannot_listen)?;
    say(format_args!("listening on {}\n", listener.local_addr()?));
    serve(listener, config, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
    })
    .await
}

/// Does what an operator wants done, and ends.
#[tokio::main(flavor = "current_thread")]
async fn obey(order: &Order) -> ExitCode {
    if order.is_logged() {
        log_to_stderr(LevelFilter::WARN);
    }
    let outcome = order.carry_out().await;
    say(outcome.said);
    if !outcome.complaint.is_empty() {
        complain(outcome.complaint);
    }
    ExitCode::from(outcome.code)
}

fn log_to_stderr(level: LevelFilter) {
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_ansi(false).init();
}

/// To whoever started us; that nobody listens is no reason to fail.
fn say(text: impl Display) {
    let mut out = io::stdout();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

fn complain(error: impl Display) {
    let _ = writeln!(io::stderr(), "spool-lock-exporter: {error}");
}
