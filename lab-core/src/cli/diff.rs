//! `lab diff A B`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{print_json, Failure, NO, YES};
use crate::model::Host;
use crate::query::diff::flows::flows;
use crate::query::diff::packets::{packets, Rules};
use crate::query::flows::Headers;
use crate::{render, snapshot, Lab};

/// What changes from A to B: two snapshot folders, or two files of rules.
#[derive(Args)]
pub(super) struct DiffArgs {
    /// The snapshot folder, or what iptables-save or nft printed, before.
    old: PathBuf,
    /// The same after.
    new: PathBuf,
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
    let host = Host::default();
    let found = packets(Rules { host: &host, ruleset: &old }, Rules { host: &host, ruleset: &new })?;
    if json {
        print_json(&json!({ "schema": "lab.diff/1", "packets": found }), out)?;
    } else {
        write!(out, "{}", render::diff::packets(&found))?;
    }
    Ok(if found.is_empty() { YES } else { NO })
}

fn labs(args: &DiffArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let (old, new) = (Lab::open(&args.old)?, Lab::open(&args.new)?);
    let headers = Headers { any: args.any, ..Headers::default() };
    let found = flows(&old, &new, &headers)?;
    if json {
        print_json(&json!({ "schema": "lab.diff/1", "flows": found }), out)?;
    } else {
        write!(out, "{}", render::diff::flows(&found))?;
    }
    Ok(if found.is_empty() { YES } else { NO })
}
