//! `lab diff A B`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{print_json, Failure, NO, YES};
use crate::model::Host;
use crate::query::diff::edits::HostEdits;
use crate::query::diff::whole;
use crate::query::flows::Headers;
use crate::{render, snapshot, Lab};

/// How a difference is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum As {
    /// What is written otherwise, what each rule does, and what becomes of
    /// packets.
    Text,
    /// Unified diffs of the chains that differ.
    Unified,
    /// The commands that make the one the other, in order.
    Commands,
    /// Files for iptables-restore --noflush and nft -f, with the commands that
    /// read them.
    Payload,
}

/// What changes from A to B: two snapshot folders, or two files of rules.
#[derive(Args)]
pub(super) struct DiffArgs {
    /// The snapshot folder, or what iptables-save or nft printed, before.
    old: PathBuf,
    /// The same after.
    new: PathBuf,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t = As::Text)]
    format: As,
    /// Ask of any packets between hosts, not only those that open connections.
    #[arg(long)]
    any: bool,
}

pub(super) fn run(args: &DiffArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    match (args.old.is_dir(), args.new.is_dir()) {
        (true, true) => labs(args, json, out),
        (false, false) => rules(args, json, out),
        (true, false) | (false, true) => {
            Err("give two snapshot folders, or two files of rules, not one of each".into())
        }
    }
}

fn rules(args: &DiffArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let (old, new) = (snapshot::read_rules(&args.old)?, snapshot::read_rules(&args.new)?);
    let found = whole::rules(&old, &new)?;
    if json {
        print_json(&render::diff::rules_json(&old, &found)?, out)?;
    } else if args.format == As::Text {
        write!(out, "{}", render::diff::rules(&found))?;
    } else {
        let mut lab = Lab::default();
        lab.hosts.insert(String::new(), Host { ruleset: old, ..Host::default() }.into());
        written(args.format, &lab, std::slice::from_ref(&found.edits), out)?;
    }
    Ok(if found.is_empty() { YES } else { NO })
}

fn labs(args: &DiffArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let (old, new) = (Lab::open(&args.old)?, Lab::open(&args.new)?);
    let headers = Headers { any: args.any, ..Headers::default() };
    let found = whole::labs(&old, &new, &headers)?;
    if json {
        print_json(&render::diff::labs_json(&old, &found)?, out)?;
    } else if args.format == As::Text {
        write!(out, "{}", render::diff::labs(&found))?;
    } else {
        written(args.format, &old, &found.edits.hosts, out)?;
    }
    Ok(if found.is_empty() { YES } else { NO })
}

/// What is written otherwise, for tools.
fn written(form: As, old: &Lab, hosts: &[HostEdits], out: &mut dyn Write) -> Result<(), Failure> {
    let empty = Host::default();
    for edits in hosts {
        let host = old.host(&edits.host).unwrap_or(&empty);
        if !edits.host.is_empty() {
            writeln!(out, "# {}", render::safe(&edits.host))?;
        }
        let unsaid = match form {
            As::Text | As::Unified => {
                for chain in &edits.chains {
                    write!(out, "{}", render::edits::unified(chain))?;
                }
                Vec::new()
            }
            As::Commands => {
                let (said, unsaid): (Vec<_>, Vec<_>) =
                    render::edits::commands(host, edits).into_iter().partition(Result::is_ok);
                for command in said.into_iter().flatten() {
                    writeln!(out, "{command}")?;
                }
                unsaid.into_iter().filter_map(Result::err).collect()
            }
            As::Payload => {
                let (payloads, unsaid) = render::edits::payloads(host, edits);
                for payload in payloads {
                    writeln!(out, "# {}", payload.command.join(" "))?;
                    write!(out, "{}", payload.text)?;
                }
                unsaid
            }
        };
        for why in unsaid {
            writeln!(out, "# {}", render::safe(&why.to_string()))?;
        }
        for what in &edits.unsaid {
            writeln!(out, "# {}", render::safe(what))?;
        }
    }
    Ok(())
}
