//! The `lab` command: argument parsing over [`crate::query`] and
//! [`crate::render`], nothing else.

mod diff;
mod plan;
mod repair;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::addr::{Family, PortRange};
use crate::query::flows::Headers;
use crate::query::trace::Question;
use crate::query::{ends, matrix, observed, policy, predict, reach, show, trace, what_if};
use crate::{render, snapshot, Lab};

/// Certainly yes, all agree, nothing to report.
pub const YES: u8 = 0;
/// A no, a possible, a difference or a finding.
pub const NO: u8 = 1;
/// Bad input or usage.
pub const BAD: u8 = 2;

/// Kernel-exact answers about Linux networks.
#[derive(Parser)]
#[command(name = "lab", version, about, propagate_version = true)]
struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What was understood of a snapshot, and what was not.
    Show {
        /// The snapshot folder.
        snapshot: PathBuf,
        /// Only this host.
        host: Option<String>,
    },
    /// Follow one packet from one end to another, and its reply back.
    Trace(TraceArgs),
    /// Which packets get from where to where: all of them at once.
    Reach(ReachArgs),
    /// Who reaches whom, for some services: hosts by hosts.
    Matrix {
        /// The snapshot folder.
        snapshot: PathBuf,
        /// A service: tcp/22, udp/53, icmp. May be repeated; icmp if there is
        /// none.
        #[arg(long)]
        service: Vec<String>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// IPv6 addresses of the hosts alone.
        #[arg(short = '6', long)]
        ipv6: bool,
        /// As if this were done first: "HOST: ip link set eth0 down",
        /// "HOST: iptables -I FORWARD 1 -j ACCEPT", …. May be repeated.
        #[arg(long, value_name = "CHANGE")]
        what_if: Vec<String>,
    },
    /// What a change changes: which flows it opens and cuts, and by which rules.
    Diff(diff::DiffArgs),
    /// An order of steps from one lab to another that hurts nobody on the way.
    Plan(plan::PlanArgs),
    /// What must be changed for packets to pass, or not to: rules, routes and
    /// switches, proved by asking again.
    Repair(repair::RepairArgs),
    /// Answer the snapshot's probes.json, in the form of truth.json.
    Predict {
        /// The snapshot folder.
        snapshot: PathBuf,
    },
    /// Does a network do what it must? SNAPSHOT POLICY.toml; or with --observed
    /// compare predictions with what was seen.
    Check {
        /// Compare with the snapshots' observed.json instead.
        #[arg(long)]
        observed: bool,
        /// The snapshot folder and the policy file; with --observed, snapshot
        /// folders.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// As if this were done first: "HOST: ip link set eth0 down",
        /// "HOST: iptables -I FORWARD 1 -j ACCEPT", …. May be repeated.
        #[arg(long, value_name = "CHANGE")]
        what_if: Vec<String>,
        /// Name the rules that no line of the policy meets.
        #[arg(long)]
        coverage: bool,
    },
}

/// How a matrix is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Md,
}

#[derive(Args)]
struct TraceArgs {
    /// The snapshot folder.
    snapshot: PathBuf,
    /// Who sends: a host, HOST:IFACE, or an address of a host.
    from: String,
    /// Where to: a host, HOST:IFACE, or an address.
    to: String,
    /// icmp, tcp, udp, sctp, or an IP protocol number; tcp if --dport is given.
    #[arg(long)]
    proto: Option<String>,
    /// Destination port.
    #[arg(long)]
    dport: Option<u16>,
    /// Source port; without it any that the sender's kernel may pick.
    #[arg(long)]
    sport: Option<u16>,
    /// Firewall mark of the sending socket, in decimal or 0x hexadecimal.
    #[arg(long, value_parser = mark, default_value = "0")]
    mark: u32,
    /// Prefer IPv6 addresses of the ends.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Show every chain, rule and route, not just what decides.
    #[arg(long)]
    full: bool,
}

#[derive(Args)]
struct ReachArgs {
    /// The snapshot folder.
    snapshot: PathBuf,
    /// Who sends: a host, HOST:IFACE, an address, a prefix, or @outside; else
    /// every host and @outside.
    #[arg(long)]
    from: Option<String>,
    /// Where the packets should arrive: a host, HOST:IFACE, an address or
    /// prefix as written in the packet, or @outside; else anywhere.
    #[arg(long)]
    to: Option<String>,
    /// icmp, tcp, udp, sctp, or an IP protocol number; tcp if --dport is given.
    #[arg(long)]
    proto: Option<String>,
    /// Destination port or range: 22, 8000-8100.
    #[arg(long, value_parser = ports)]
    dport: Option<PortRange>,
    /// Source port or range.
    #[arg(long, value_parser = ports)]
    sport: Option<PortRange>,
    /// IPv4 packets alone.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 packets alone.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Count only what is answered, and the answer comes back.
    #[arg(long)]
    and_back: bool,
    /// Any packets, not only those that open connections.
    #[arg(long)]
    any: bool,
    /// As if this were done first: "HOST: ip link set eth0 down",
    /// "HOST: iptables -I FORWARD 1 -j ACCEPT", …. May be repeated.
    #[arg(long, value_name = "CHANGE")]
    what_if: Vec<String>,
}

impl ReachArgs {
    fn headers(&self) -> Result<Headers, Failure> {
        let protocol = match (&self.proto, self.dport) {
            (None, None) => None,
            (proto, dport) => Some(Question::protocol(proto.as_deref(), dport.map(|p| p.low))?),
        };
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::Ipv4),
            (_, true) => Some(Family::Ipv6),
            _ => None,
        };
        Ok(Headers { protocol, sport: self.sport, dport: self.dport, family, any: self.any })
    }
}

fn ports(text: &str) -> Result<PortRange, String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let port = |t: &str| t.parse::<u16>().map_err(|_| format!("`{t}` is no port"));
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(format!("{low} is above {high}"));
    }
    Ok(PortRange { low, high })
}

fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|e| e.to_string())
}

/// What went wrong, in words for the user.
type Failure = Box<dyn std::error::Error>;

/// Runs the command with these arguments (the first is the program's name)
/// and returns its exit code: 0 certainly yes, 1 otherwise, 2 bad input.
pub fn run<I, T>(arguments: I, out: &mut dyn Write, errors: &mut dyn Write) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and go to the output.
            if error.use_stderr() {
                let _ = write!(errors, "{error}");
                return BAD;
            }
            let _ = write!(out, "{error}");
            return YES;
        }
    };
    let done = match &cli.command {
        Command::Show { snapshot, host } => run_show(snapshot, host.as_deref(), cli.json, out),
        Command::Trace(args) => run_trace(args, cli.json, out),
        Command::Reach(args) => run_reach(args, cli.json, out),
        Command::Matrix { snapshot, service, format, ipv6, what_if } => {
            let format = if cli.json { Format::Json } else { *format };
            open(snapshot, what_if).and_then(|lab| run_matrix(&lab, service, format, *ipv6, out))
        }
        Command::Diff(args) => diff::run(args, cli.json, out),
        Command::Plan(args) => plan::run(args, cli.json, out),
        Command::Repair(args) => repair::run(args, cli.json, out),
        Command::Predict { snapshot } => run_predict(snapshot, out),
        Command::Check { observed: true, paths, .. } => run_observed(paths, cli.json, out),
        Command::Check { paths, what_if, coverage, .. } => {
            run_check(paths, what_if, *coverage, cli.json, out)
        }
    };
    match done {
        Ok(code) => code,
        // Nobody reads on (`lab … | head`): no error of the question.
        Err(error) if is_broken_pipe(error.as_ref()) => YES,
        Err(error) => {
            let _ = writeln!(errors, "lab: {}", render::safe(&error.to_string()));
            BAD
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn print_json(value: &impl serde::Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)?;
    writeln!(out, "{}", render::safe_json(&text))?;
    Ok(())
}

fn run_show(path: &Path, host: Option<&str>, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let lab = Lab::open(path)?;
    let summary = show::show(&lab, host)?;
    if json {
        print_json(&summary, out)?;
    } else {
        write!(out, "{}", render::summary(&summary))?;
    }
    let understood = summary.unmodelled.is_empty()
        && summary.hosts.iter().all(|h| h.unmodelled.is_empty() && h.unknown.is_empty());
    Ok(if understood { YES } else { NO })
}

fn run_trace(args: &TraceArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let lab = Lab::open(&args.snapshot)?;
    let (from, to) = (ends::parse(&lab, &args.from)?, ends::parse(&lab, &args.to)?);
    let protocol = Question::protocol(args.proto.as_deref(), args.dport)?;
    let family = args.ipv6.then_some(Family::Ipv6);
    let question = Question { protocol, sport: args.sport, dport: args.dport, mark: args.mark, family };
    let answer = trace::trace(&lab, &from, &to, &question)?;
    if json {
        print_json(&answer, out)?;
    } else {
        write!(out, "{}", render::trace(&answer, args.full))?;
    }
    Ok(if answer.holds() { YES } else { NO })
}

fn run_reach(args: &ReachArgs, json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let lab = open(&args.snapshot, &args.what_if)?;
    let end = |text: &Option<String>| text.as_deref().map(|t| ends::parse(&lab, t)).transpose();
    let (from, to) = (end(&args.from)?, end(&args.to)?);
    let question = reach::Question { from, to, headers: args.headers()?, and_back: args.and_back };
    let answer = reach::reach(&lab, &question)?;
    if json {
        print_json(&answer, out)?;
    } else {
        write!(out, "{}", render::reach(&answer))?;
    }
    Ok(if answer.holds() { YES } else { NO })
}

fn run_check(
    paths: &[PathBuf],
    changes: &[String],
    coverage: bool,
    json: bool,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let [snapshot, file] = paths else { return Err("write lab check SNAPSHOT POLICY.toml".into()) };
    let lab = open(snapshot, changes)?;
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let policy = policy::Policy::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    let checked = policy::check(&lab, &policy)?;
    if json {
        print_json(&checked, out)?;
    } else {
        write!(out, "{}", render::policy(&checked, coverage))?;
    }
    Ok(if checked.holds() { YES } else { NO })
}

/// The lab of a snapshot, as it would be after some changes.
fn open(path: &Path, changes: &[String]) -> Result<Lab, Failure> {
    let lab = Lab::open(path)?;
    let changes = changes.iter().map(|c| c.parse()).collect::<Result<Vec<what_if::HostChange>, _>>()?;
    Ok(what_if::what_if(&lab, &changes)?)
}

fn run_matrix(
    lab: &Lab,
    services: &[String],
    format: Format,
    ipv6: bool,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let mut wanted = services.iter().map(|s| s.parse()).collect::<Result<Vec<matrix::Service>, _>>()?;
    if wanted.is_empty() {
        wanted.push(matrix::Service::PING);
    }
    let answer = matrix::matrix(lab, &wanted, ipv6.then_some(Family::Ipv6))?;
    match format {
        Format::Text => write!(out, "{}", render::matrix(&answer))?,
        Format::Md => write!(out, "{}", render::matrix_markdown(&answer))?,
        Format::Json => print_json(&answer, out)?,
    }
    Ok(if answer.holds() { YES } else { NO })
}

fn run_predict(path: &Path, out: &mut dyn Write) -> Result<u8, Failure> {
    let lab = Lab::open(path)?;
    let probes = snapshot::read_probes(path)?;
    predict::check(&lab, &probes)?;
    let predictions = predict::predict(&lab, &probes);
    let document = render::predictions::document(&lab.name, &predictions);
    writeln!(out, "{}", render::safe_json(&serde_json::to_string(&document)?))?;
    Ok(YES)
}

fn run_observed(paths: &[PathBuf], json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    // All are read before anything is printed: bad input gives no half answer.
    let labs = paths
        .iter()
        .map(|path| {
            let lab = Lab::open(path)?;
            let probes = observed::check(&lab, &snapshot::read_observed(path)?)?;
            Ok(observed::Checked { lab: lab.name, probes })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    if json {
        print_json(&serde_json::json!({ "schema": "lab.check-observed/1", "labs": labs }), out)?;
    } else {
        write!(out, "{}", render::comparisons(&labs))?;
    }
    let agree = labs.iter().flat_map(|l| &l.probes).all(|c| c.disagreements.is_empty());
    Ok(if agree { YES } else { NO })
}
