//! Who may reach whom with one service, on a rule set like a site's firewall.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use lab_core::addr::Family;
use lab_core::formats::iptables;
use lab_core::model::Host;
use lab_core::query::service_matrix::{service_matrix, Cell, Service};

use crate::table::{time, Row};

/// Compiling for the service and the matrix; reading is not in it.
const MOST: Duration = Duration::from_millis(100);

/// How many rules the table has.
const RULES: usize = 5_000;

/// Every row.
pub fn rows() -> Vec<Row> {
    let text = table(RULES);
    let size = format!("{RULES} rules");
    let row = |work, ours, bar, met| Row { work, size: size.clone(), ours, bar, met };
    let tables = match iptables::parse("iptables.save", &text, Family::Ipv4) {
        Ok(tables) => tables,
        Err(error) => {
            return vec![row("service matrix", format!("WRONG: {error}"), String::new(), Some(false))]
        }
    };
    let count: usize = tables.iter().flat_map(|t| &t.chains).map(|c| c.rules.len()).sum();
    let host = Host::default();
    let mut rows = Vec::new();
    for (work, service) in [
        ("matrix of ssh", Service::tcp(22)),
        ("matrix of http", Service::tcp(80)),
        ("matrix of dns", Service { protocol: 17, ..Service::tcp(53) }),
    ] {
        let mut best = Duration::MAX;
        let mut answer = None;
        for _ in 0..5 {
            let start = Instant::now();
            answer = service_matrix(&host, &tables[0], "FORWARD", &service).ok();
            best = best.min(start.elapsed());
        }
        let Some(matrix) = answer else {
            rows.push(row(work, "WRONG: no answer".into(), String::new(), Some(false)));
            continue;
        };
        let classes = matrix.classes.len();
        let yes =
            (0..classes).map(|from| (0..classes).filter(|to| matrix.cell(from, *to) == Cell::Yes).count());
        let ours = format!("{}, {classes} classes, {} pairs", time(best), yes.sum::<usize>());
        let right = count == RULES && classes > 1;
        rows.push(row(work, ours, time(MOST), Some(right && best <= MOST)));
    }
    rows
}

/// Numbers that look random.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// A table of so many rules: a chain for each network, one below it for its
/// servers, another that checks who a source is.
fn table(rules: usize) -> String {
    const NETWORKS: u64 = 60;
    let mut number = numbers(7);
    let mut chains =
        String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    let mut lines =
        String::from("-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -j ranges\n");
    chains.push_str(":ranges - [0:0]\n:spoofed - [0:0]\n");
    lines.push_str("-A spoofed -j LOG --log-prefix \"spoofed \"\n-A spoofed -j DROP\n");
    let mut count = 4;
    let mut add = |line: std::fmt::Arguments| {
        // Writing to a String cannot fail.
        let _ = lines.write_fmt(line);
        lines.push('\n');
    };
    for _ in 0..40 {
        let (a, b) = (number(NETWORKS), number(200));
        add(format_args!(
            "-A ranges -m iprange --src-range 10.{a}.1.{b}-10.{a}.3.{} -d 203.0.{a}.0/24 -j DROP",
            number(250)
        ));
        count += 1;
    }
    for n in 0..NETWORKS {
        let _ = write!(chains, ":net{n} - [0:0]\n:servers{n} - [0:0]\n:known{n} - [0:0]\n");
        add(format_args!("-A FORWARD -d 10.{n}.0.0/16 -j net{n}"));
        add(format_args!("-A FORWARD -s 10.{n}.0.0/16 -j known{n}"));
        add(format_args!("-A net{n} -s 10.{n}.0.0/16 -j RETURN"));
        add(format_args!("-A net{n} -d 10.{n}.0.0/22 -j servers{n}"));
        add(format_args!("-A net{n} -s 127.0.0.0/8 -j spoofed"));
        add(format_args!("-A known{n} ! -d 10.0.0.0/8 -p tcp -m multiport --dports 22,80,443 -j ACCEPT"));
        count += 6;
    }
    let mut n = 0;
    while count < rules {
        n = (n + 1) % NETWORKS;
        let (other, host, port) =
            (number(NETWORKS), number(1024), [22, 25, 53, 80, 443, 8080][number(6) as usize]);
        let server = format!("10.{n}.{}.{}", host / 256, host % 256);
        match number(10) {
            0..=3 => add(format_args!(
                "-A servers{n} -s 10.{other}.0.0/16 -d {server}/32 -p tcp -m tcp --dport {port} -j ACCEPT"
            )),
            4 | 5 => add(format_args!(
                "-A servers{n} -s 10.{other}.{}.0/24 -d {server}/32 -p tcp -m multiport --dports {port},8000:8100 -j ACCEPT",
                number(256)
            )),
            6 => add(format_args!("-A servers{n} -d {server}/32 -p udp -m udp --dport {port} -j ACCEPT")),
            7 => add(format_args!(
                "-A known{n} -s 10.{n}.{}.{}/32 -m mac --mac-source 02:00:00:00:{:02x}:{:02x} -j ACCEPT",
                number(256),
                number(256),
                number(256),
                number(256)
            )),
            8 => add(format_args!(
                "-A net{n} -m iprange --src-range 10.{other}.5.{}-10.{other}.6.200 -p tcp -m state --state NEW -j ACCEPT",
                number(200)
            )),
            _ => add(format_args!("-A net{n} -s 10.{other}.0.0/18 -d {server}/31 -p tcp -m tcp --sport 1024:65535 -j DROP")),
        }
        count += 1;
    }
    format!("{chains}{lines}COMMIT\n")
}
