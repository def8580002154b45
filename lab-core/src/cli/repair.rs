//! `lab repair`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{ports, print_json, Failure, NO, YES};
use crate::addr::{Family, PortRange};
use crate::query::ends;
use crate::query::flows::Headers;
use crate::query::repair::{repair, Ask, Flow};
use crate::query::trace::Question;
use crate::{render, Lab};

#[derive(Args)]
pub(super) struct RepairArgs {
    /// The snapshot folder.
    snapshot: PathBuf,
    /// Who sends: a host, HOST:IFACE, an address, a prefix, or @outside.
    from: String,
    /// Where to: a host, HOST:IFACE, an address, a prefix, or @outside.
    to: String,
    /// icmp, tcp, udp, sctp, or an IP protocol number; tcp if --dport is
    /// given, else any.
    #[arg(long)]
    proto: Option<String>,
    /// Destination port or range: 22, 8000-8100.
    #[arg(long, value_parser = ports)]
    dport: Option<PortRange>,
    /// Source port or range.
    #[arg(long, value_parser = ports)]
    sport: Option<PortRange>,
    /// IPv6.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Find what stops these packets, instead of what lets them pass.
    #[arg(long)]
    refuse: bool,
}

pub(super) fn run(args: &RepairArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let lab = Lab::open(&args.snapshot)?;
    let protocol = match (&args.proto, args.dport) {
        (None, None) => None,
        (proto, dport) => Some(Question::protocol(proto.as_deref(), dport.map(|p| p.low))?),
    };
    let family = args.ipv6.then_some(Family::Ipv6);
    let headers = Headers { protocol, sport: args.sport, dport: args.dport, family, any: false };
    let flow = Flow { from: ends::parse(&lab, &args.from)?, to: ends::parse(&lab, &args.to)?, headers };
    let mut ask = Ask::default();
    if args.refuse {
        ask.refuse.push(flow);
    } else {
        ask.pass.push(flow);
    }
    let answer = repair(&lab, &ask)?;
    if json {
        print_json(&answer, out)?;
    } else {
        write!(out, "{}", render::repair(&answer))?;
    }
    Ok(if answer.holds() { YES } else { NO })
}
