//! [`Config`]: what the exporter was told, checked before anything starts.
//!
//! Every flag has an environment variable; the flag wins. A bad value is an error that names flag, variable, value and what
//! would be right, with the secrets of a URL masked. The password of Redis comes by environment or file: an argument can
//! be read by every user of the machine, so one that has a password is refused.

use std::{
    ffi::OsString,
    fmt::{self, Display},
    net::SocketAddr,
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

use clap::{ArgAction, CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};
use tracing::level_filters::LevelFilter;

use crate::{
    operator::Order,
    source::{MAX_SERVICES, RedisUrl, ServiceSpec, mask},
};

/// What to watch, where to show it, and how long a look may take.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the pages are served. Default: 127.0.0.1:19877, outside the range of ports that exporters of the network have.
    pub listen: SocketAddr,
    /// Whose snapshots are read, at most 16.
    pub services: Vec<ServiceSpec>,
    /// The Redis server, if one is watched.
    pub redis: Option<RedisConfig>,
    /// The longest that one scrape takes, 50 ms to 9 s. Default: 1 s; the scraper's own timeout shortens it further.
    pub scrape_timeout: Duration,
    /// Default: info.
    pub log_level: LevelFilter,
}

/// The Redis server to watch.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where it is.
    pub url: RedisUrl,
    /// The limit of clients that its provider enforces, where that is not what the server says.
    pub connection_limit: Option<NonZeroU32>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum CommandLine {
    /// To run.
    Run(Config),
    /// To check the configuration and end.
    Check(Config),
    /// To carry out an order of an operator, in place of running.
    Operate(Order),
    /// To show a text and end: the help, the version.
    Show(String),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line could not be read; the text says why, over several lines.
    #[error("{0}")]
    Usage(String),
    /// A value cannot be used.
    #[error("{option}: {value:?} is {wrong}")]
    Value {
        /// The flag and its variable.
        option: Setting,
        /// The value, without secrets.
        value: String,
        /// What is wrong with it, and what would be right.
        wrong: String,
    },
    /// The settings do not go together.
    #[error("{0}")]
    Conflict(String),
}

/// A flag and its environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    flag: &'static str,
    variable: &'static str,
}

impl Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} ({})", self.flag, self.variable)
    }
}

/// Declares each setting once: clap and the errors use the same two names.
macro_rules! settings {
    ($($name:ident = $flag:literal, $variable:literal;)*) => {
        $(const $name: Setting = Setting { flag: $flag, variable: $variable };)*
        #[cfg(test)]
        const ALL: &[Setting] = &[$($name),*];
    };
}
settings! {
    LISTEN = "web.listen-address", "SPOOL_EXPORTER_LISTEN_ADDRESS";
    SERVICE = "service", "SPOOL_EXPORTER_SERVICE";
    REDIS_URL = "redis.url", "SPOOL_EXPORTER_REDIS_URL";
    REDIS_URL_FILE = "redis.url-file", "SPOOL_EXPORTER_REDIS_URL_FILE";
    LIMIT = "redis.connection-limit", "SPOOL_EXPORTER_REDIS_CONNECTION_LIMIT";
    TIMEOUT = "scrape.timeout", "SPOOL_EXPORTER_SCRAPE_TIMEOUT";
    LOG_LEVEL = "log.level", "SPOOL_EXPORTER_LOG_LEVEL";
    CHECK = "config.check", "SPOOL_EXPORTER_CONFIG_CHECK";
}

const DEFAULT_LISTEN: &str = "127.0.0.1:19877";
const DEFAULT_TIMEOUT: &str = "1s";
const DEFAULT_LOG_LEVEL: &str = "info";

/// Shows Prometheus what happens inside services that use spool-lock, and in their Redis.
///
/// Each flag can be given as the environment variable beside it; the flag wins.
//
// Values are texts here and parsed below: clap's own errors would show them, secrets included.
#[derive(clap::Parser)]
#[command(
    name = "spool-lock-exporter",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
struct Flags {
    #[command(subcommand)]
    order: Option<Order>,

    /// Where /metrics is served
    #[arg(long = LISTEN.flag, env = LISTEN.variable, hide_env_values = true, value_name = "IP:PORT",
          default_value = DEFAULT_LISTEN)]
    listen_address: String,

    /// A service's snapshot: [NAME=]unix:PATH or [NAME=]http://127.0.0.1:PORT; PATH may be a pattern such as
    /// /run/spool/*.sock; repeat it or separate by commas, at most 16
    #[arg(long = SERVICE.flag, env = SERVICE.variable, hide_env_values = true, value_name = "[NAME=]PLACE",
          action = ArgAction::Append, value_delimiter = ',')]
    service: Vec<String>,

    /// The Redis server, such as redis://127.0.0.1:6379; with a password only in the variable or a file
    #[arg(long = REDIS_URL.flag, env = REDIS_URL.variable, hide_env_values = true, value_name = "URL")]
    redis_url: Option<String>,

    /// A file that holds the URL of the Redis server
    #[arg(long = REDIS_URL_FILE.flag, env = REDIS_URL_FILE.variable, hide_env_values = true, value_name = "PATH")]
    redis_url_file: Option<String>,

    /// Clients that the provider of Redis admits, where that is less than the server's maxclients
    #[arg(long = LIMIT.flag, env = LIMIT.variable, hide_env_values = true, value_name = "N")]
    redis_connection_limit: Option<String>,

    /// The longest that a scrape takes, 50ms to 9s
    #[arg(long = TIMEOUT.flag, env = TIMEOUT.variable, hide_env_values = true, value_name = "DURATION",
          default_value = DEFAULT_TIMEOUT)]
    scrape_timeout: String,

    /// off, error, warn, info, debug or trace
    #[arg(long = LOG_LEVEL.flag, env = LOG_LEVEL.variable, hide_env_values = true, value_name = "LEVEL",
          default_value = DEFAULT_LOG_LEVEL)]
    log_level: String,

    /// Check the configuration and end: 0 if it is good, 2 if not
    #[arg(long = CHECK.flag, env = CHECK.variable, hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    config_check: bool,
}

impl CommandLine {
    /// Reads the arguments, the first of which is the program, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`], whose text can be shown to anybody.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, ConfigError> {
        let usage = |error: clap::Error| ConfigError::Usage(mask(error.to_string().trim_end()));
        let matches = match Flags::command().try_get_matches_from(args) {
            Ok(matches) => matches,
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                return Ok(Self::Show(error.to_string()));
            }
            Err(error) => return Err(usage(error)),
        };
        let flags = Flags::from_arg_matches(&matches).map_err(usage)?;
        if let Some(order) = flags.order {
            return Ok(Self::Operate(order));
        }
        let url_in_argument = matches.value_source("redis_url") == Some(ValueSource::CommandLine);
        let check = flags.config_check;
        let config = Config::from_flags(&flags, url_in_argument)?;
        Ok(if check { Self::Check(config) } else { Self::Run(config) })
    }
}

impl Config {
    fn from_flags(flags: &Flags, url_in_argument: bool) -> Result<Self, ConfigError> {
        let listen = parsed(LISTEN, filled_or(&flags.listen_address, DEFAULT_LISTEN), |_| {
            "not an address; IP:PORT is, such as 127.0.0.1:19877".to_owned()
        })?;
        let services = services(&flags.service)?;
        let limit = filled(&flags.redis_connection_limit).map(|text| {
            parsed::<NonZeroU32>(LIMIT, text, |_| "not a number of clients; 1 or more is".to_owned())
        });
        let limit = limit.transpose()?;
        let url = redis_url(filled(&flags.redis_url), filled(&flags.redis_url_file), url_in_argument)?;
        if services.is_empty() && url.is_none() {
            return Err(ConfigError::Conflict(format!("nothing to watch: give {SERVICE} or {REDIS_URL}")));
        }
        if limit.is_some() && url.is_none() {
            return Err(ConfigError::Conflict(format!("{LIMIT} is of no use without {REDIS_URL}")));
        }
        Ok(Self {
            listen,
            services,
            redis: url.map(|url| RedisConfig { url, connection_limit: limit }),
            scrape_timeout: scrape_timeout(filled_or(&flags.scrape_timeout, DEFAULT_TIMEOUT))?,
            log_level: parsed(LOG_LEVEL, filled_or(&flags.log_level, DEFAULT_LOG_LEVEL), |_| {
                "not a level; off, error, warn, info, debug and trace are".to_owned()
            })?,
        })
    }
}

fn services(texts: &[String]) -> Result<Vec<ServiceSpec>, ConfigError> {
    let mut services: Vec<ServiceSpec> = Vec::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let service: ServiceSpec = parsed(SERVICE, text, |wrong| wrong)?;
        let is_taken = |other: &ServiceSpec| service.name().is_some() && other.name() == service.name();
        if services.iter().any(is_taken) {
            let wrong = "called like another service; put another NAME= in front";
            return Err(value_error(SERVICE, text, wrong.to_owned()));
        }
        if services.len() == MAX_SERVICES {
            return Err(value_error(
                SERVICE,
                text,
                format!("one too many; {MAX_SERVICES} services are the most"),
            ));
        }
        services.push(service);
    }
    Ok(services)
}

fn redis_url(
    text: Option<&str>,
    file: Option<&str>,
    in_argument: bool,
) -> Result<Option<RedisUrl>, ConfigError> {
    match (text, file) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(ConfigError::Conflict(format!("give {REDIS_URL} or {REDIS_URL_FILE}, not both")))
        }
        (Some(text), None) => {
            let url: RedisUrl = parsed(REDIS_URL, text, |wrong| wrong)?;
            if in_argument && url.has_password() {
                let wrong = format!(
                    "an argument with a password, which every user of this machine can read; put the URL into {} or \
                     into a file for --{}",
                    REDIS_URL.variable, REDIS_URL_FILE.flag
                );
                return Err(value_error(REDIS_URL, text, wrong));
            }
            Ok(Some(url))
        }
        (None, Some(file)) => {
            let wrong = |wrong: String| value_error(REDIS_URL_FILE, file, wrong);
            let text = std::fs::read_to_string(file)
                .map_err(|error| wrong(format!("not readable ({error}); a file with one URL in it is")))?;
            let url = text
                .trim()
                .parse()
                .map_err(|error| wrong(format!("a file with something else in it: {error}")))?;
            Ok(Some(url))
        }
    }
}

fn scrape_timeout(text: &str) -> Result<Duration, ConfigError> {
    // Above 9 s the limit for a whole request, 10 s, would come first.
    let range = Duration::from_millis(50)..=Duration::from_secs(9);
    match humantime::parse_duration(text) {
        Ok(timeout) if range.contains(&timeout) => Ok(timeout),
        Ok(_) => Err(value_error(TIMEOUT, text, "out of range; 50ms to 9s is right".to_owned())),
        Err(_) => Err(value_error(TIMEOUT, text, "not a duration; 50ms to 9s is, such as 1s".to_owned())),
    }
}

fn parsed<T: FromStr>(
    setting: Setting,
    text: &str,
    wrong: impl FnOnce(T::Err) -> String,
) -> Result<T, ConfigError> {
    text.trim().parse().map_err(|error| value_error(setting, text, wrong(error)))
}

fn value_error(option: Setting, value: &str, wrong: String) -> ConfigError {
    ConfigError::Value { option, value: mask(value), wrong }
}

/// An empty variable is one that was not set: that is how files of variables leave one out.
fn filled(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

fn filled_or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.trim().is_empty() { default } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("exporter").chain(args.iter().copied()).map(OsString::from);
        match CommandLine::parse(args) {
            Ok(CommandLine::Run(config) | CommandLine::Check(config)) => Ok(config),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let config = parse(&["--redis.url=redis://127.0.0.1"]).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 19877)));
        assert_eq!(config.scrape_timeout, Duration::from_secs(1));
        assert_eq!(config.log_level, LevelFilter::INFO);
        assert!(config.services.is_empty());
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag_and_what_would_be_right() {
        let many: Vec<_> = (0..17).map(|n| format!("--service=unix:/run/{n}.sock")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for (args, texts) in [
            (&[][..], &["nothing to watch", "--service", "SPOOL_EXPORTER_REDIS_URL"][..]),
            (
                &["--web.listen-address=here"],
                &["--web.listen-address (SPOOL_EXPORTER_LISTEN_ADDRESS)", "\"here\"", "IP:PORT"],
            ),
            (
                &["--service=http://10.0.0.1:80"],
                &["--service", "\"http://10.0.0.1:80\"", "http://127.0.0.1:PORT"],
            ),
            (&["--service=unix:/a.sock,unix:/b/a.sock"], &["\"unix:/b/a.sock\"", "NAME="]),
            (&many, &["unix:/run/16.sock", "16 services"]),
            (&["--redis.url=http://:s3cret@h"], &["--redis.url", "\"http://***@h\"", "redis://HOST:PORT"]),
            (
                &["--redis.url=redis://:s3cret@h"],
                &["\"redis://***@h\"", "SPOOL_EXPORTER_REDIS_URL", "--redis.url-file"],
            ),
            (&["--redis.url=redis+unix:///r.sock?pass=s3cret"], &["every user", "?***"]),
            (
                &["--redis.url-file=/no/such/file"],
                &["--redis.url-file", "\"/no/such/file\"", "one URL in it"],
            ),
            (&["--redis.url=redis://h", "--redis.url-file=/f"], &["not both"]),
            (
                &["--redis.url=redis://h", "--redis.connection-limit=0"],
                &["--redis.connection-limit", "\"0\"", "1 or more"],
            ),
            (&["--service=unix:/a", "--redis.connection-limit=9"], &["of no use without --redis.url"]),
            (
                &["--redis.url=redis://h", "--scrape.timeout=soon"],
                &["--scrape.timeout", "\"soon\"", "50ms to 9s"],
            ),
            (&["--redis.url=redis://h", "--scrape.timeout=10s"], &["\"10s\"", "50ms to 9s"]),
            (&["--redis.url=redis://h", "--log.level=loud"], &["--log.level", "\"loud\"", "debug"]),
            (&["--redis.ur=redis://:s3cret@h"], &["--redis.ur"]),
            (&["redis://:s3cret@h"], &["redis://***@h"]),
        ] {
            let error = parse(args).expect_err(&format!("{args:?}"));
            for text in texts {
                assert!(error.contains(text), "{args:?}: {error:?} lacks {text:?}");
            }
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn every_setting_has_its_variable() {
        for argument in
            Flags::command().get_arguments().filter(|argument| argument.get_long() != Some("help"))
        {
            let Some(flag) = argument.get_long().filter(|flag| *flag != "version") else { continue };
            let setting = ALL.iter().find(|setting| setting.flag == flag);
            let variable = setting.map(|setting| setting.variable);
            assert_eq!(argument.get_env().and_then(|variable| variable.to_str()), variable, "--{flag}");
            assert!(
                argument.is_hide_env_values_set(),
                "--{flag} would show its variable's value in the help"
            );
        }
    }
}
