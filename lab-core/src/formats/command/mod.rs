//! Changes as the commands that make them: `iptables(8)`, `ip(8)`, `nft(8)`,
//! `ipset(8)`, `sysctl(8)`.
//!
//! What is printed is for a POSIX shell, run by root, so every word is quoted
//! that holds anything but harmless characters: names and comments may come
//! from a hostile rule set. What is parsed is split into words as a shell does,
//! without expanding anything.

mod address;
mod ipset;
mod iptables;
mod nft;
mod nft_value;
mod policy;
mod route;

pub(crate) use nft::{base_text, json_expressions, rule_json, rule_text as nft_rule_text, say, Said};
pub(crate) use nft_value::{declared, elements, Declared};

use crate::model::{Change, Host};

/// A change that has no command, or a command that says no change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command is not understood.
    #[error("{0}")]
    Syntax(String),
    /// No command says this.
    #[error("no command says this: {0}")]
    Unsayable(String),
}

fn syntax<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::Syntax(message.into()))
}

fn unsayable<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::Unsayable(message.into()))
}

/// One command of these words, quoted for a shell.
///
/// ```
/// use lab_core::formats::command::quoted;
/// let words = ["iptables", "-m", "comment", "--comment", "$(reboot) 'now'"];
/// assert_eq!(quoted(words)?, r#"iptables -m comment --comment '$(reboot) '"'now'""#);
/// # Ok::<(), lab_core::formats::command::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Unsayable`]: a word holds a NUL, which no argument can.
pub fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<String, Error> {
    shlex::try_join(words).map_err(|_| Error::Unsayable("a name or comment with a NUL in it".to_owned()))
}

fn joined(words: &[String]) -> Result<String, Error> {
    quoted(words.iter().map(String::as_str))
}

/// The command that makes a change on a host, which is as it was just before:
/// it tells where rules stand now, and which machineries there are.
///
/// ```
/// use lab_core::formats::command;
/// use lab_core::model::{Change, Host};
/// let change = Change::Sysctl("net.ipv4.ip_forward".into(), "1".into());
/// assert_eq!(command::print(&Host::default(), &change)?, "sysctl -w 'net.ipv4.ip_forward=1'");
/// # Ok::<(), command::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Unsayable`]: no command makes this change, as the value came from a
/// program and has no text, or the tool has no words for it.
pub fn print(host: &Host, change: &Change) -> Result<String, Error> {
    match change {
        Change::AddTable(table)
        | Change::DeleteTable(table)
        | Change::AddChain { table, .. }
        | Change::DeleteChain { table, .. }
        | Change::SetPolicy { table, .. }
        | Change::InsertRule { table, .. }
        | Change::DeleteRule { table, .. }
        | Change::ReplaceRule { table, .. } => match table.xtables {
            true => iptables::print(host, table, change),
            false => nft::print(host, table, change),
        },
        Change::AddSet { table, .. }
        | Change::DeleteSet { table, .. }
        | Change::AddElements { table, .. }
        | Change::DeleteElements { table, .. } => nft::print(host, table, change),
        Change::CreateIpset(_)
        | Change::DestroyIpset(_)
        | Change::AddIpsetElements(_)
        | Change::DeleteIpsetElements(_) => ipset::print(change),
        Change::AddRoute(route) => route::print_add(host, route),
        Change::DeleteRoute(key) => route::print_delete(key),
        Change::AddPolicyRule(rule) => policy::print("add", rule),
        Change::DeletePolicyRule(rule) => policy::print("del", rule),
        Change::AddAddress { interface, address } => address::print_add(interface, address),
        Change::DeleteAddress { interface, address, peer } => {
            address::print_delete(interface, *address, *peer)
        }
        Change::Sysctl(key, value) => quoted(["sysctl", "-w", &format!("{key}={value}")]),
        Change::Link(device, up) => {
            quoted(["ip", "link", "set", "dev", device, if *up { "up" } else { "down" }])
        }
    }
}

/// Reads a command of `iptables`, `ip6tables`, `ip` or `sysctl`. Those of one
/// machinery (`iptables-legacy`, `iptables-nft`) are for its tables alone.
///
/// ```
/// use lab_core::formats::command;
/// use lab_core::model::Change;
/// let change = command::parse("iptables -t nat -D PREROUTING 2")?;
/// assert!(matches!(change, Change::DeleteRule { place: 2, .. }));
/// # Ok::<(), command::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Syntax`]: a command that is not understood, or does not say one
/// change.
pub fn parse(command: &str) -> Result<Change, Error> {
    let Some(words) = shlex::split(command) else { return syntax("a quote is never closed") };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [program, rest @ ..] if iptables::is_program(program) => iptables::parse(program, rest),
        ["ip", rest @ ..] => parse_ip(rest),
        ["sysctl", rest @ ..] => {
            let setting = rest.iter().copied().filter(|w| *w != "-w").collect::<Vec<_>>().join(" ");
            match setting.split_once('=') {
                Some((key, value)) => Ok(Change::Sysctl(key.trim().to_owned(), value.trim().to_owned())),
                None => syntax("write KEY=VALUE"),
            }
        }
        _ => syntax("only iptables, ip6tables, ip and sysctl commands are understood"),
    }
}

fn parse_ip(words: &[&str]) -> Result<Change, Error> {
    let (v6, words) = match words {
        ["-4", rest @ ..] => (false, rest),
        ["-6", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match words {
        ["route" | "r", "del" | "delete", rest @ ..] => route::parse_delete(rest, v6),
        ["route" | "r", "add" | "replace" | "append", rest @ ..] => route::parse_add(rest, v6),
        ["rule" | "ru", "add", rest @ ..] => policy::parse(rest, v6).map(Change::AddPolicyRule),
        ["rule" | "ru", "del" | "delete", rest @ ..] => policy::parse(rest, v6).map(Change::DeletePolicyRule),
        ["addr" | "address" | "a", "add", rest @ ..] => address::parse_add(rest),
        ["addr" | "address" | "a", "del" | "delete", rest @ ..] => address::parse_delete(rest),
        ["link" | "l", "set", "dev", device, state] | ["link" | "l", "set", device, state] => match *state {
            "up" => Ok(Change::Link((*device).to_owned(), true)),
            "down" => Ok(Change::Link((*device).to_owned(), false)),
            _ => syntax("write ip link set DEVICE up|down"),
        },
        ["link" | "l", ..] => syntax("write ip link set DEVICE up|down"),
        _ => syntax("only ip route, rule, addr and link commands are understood"),
    }
}

/// The words of a command, taken one by one.
struct Words<'a>(std::slice::Iter<'a, &'a str>);

impl<'a> Words<'a> {
    fn of(words: &'a [&'a str]) -> Self {
        Words(words.iter())
    }

    fn next(&mut self) -> Option<&'a str> {
        self.0.next().copied()
    }

    fn value(&mut self, option: &str) -> Result<&'a str, Error> {
        self.next().ok_or_else(|| Error::Syntax(format!("{option} without a value")))
    }

    /// The next word as a value of this sort.
    fn parsed<T: std::str::FromStr>(&mut self, option: &str, what: &str) -> Result<T, Error> {
        let value = self.value(option)?;
        value.parse().map_err(|_| Error::Syntax(format!("`{value}` is no {what}")))
    }

    /// What a table of names has for the next word.
    fn named<T>(&mut self, option: &str, what: &str, look: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        let value = self.value(option)?;
        look(value).ok_or_else(|| Error::Syntax(format!("`{value}` is no {what}")))
    }
}

#[cfg(test)]
mod tests;
