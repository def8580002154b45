//! How far each extension of iptables-extensions(8) is modelled: one list, of
//! which `MATCHES.md` is the printed form.

use Coverage::{Chance, Either, Exact, Harmless, Kept, Quiet};

/// How far an extension is modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coverage {
    /// It means what it means to the kernel.
    Exact,
    /// It means what it means to a lone packet on a quiet network, and answers
    /// say so.
    Quiet,
    /// Where chance or a count decides, both ways are possible.
    Chance,
    /// It changes nothing that decides about the packet.
    Harmless,
    /// A match that is kept: it may hold or not, so that answers which depend
    /// on it are possible and name it.
    Either,
    /// A target that is kept: it may accept, drop or go on, so that answers
    /// which depend on it are possible and name it. What it writes into a
    /// packet is not followed.
    Kept,
}

impl Coverage {
    /// In words, as the table has it.
    pub fn words(self) -> &'static str {
        match self {
            Coverage::Exact => "exact",
            Coverage::Quiet => "a lone packet on a quiet network",
            Coverage::Chance => "certain where all or none are picked, else possible",
            Coverage::Harmless => "no effect on where packets go",
            Coverage::Either => "kept: may hold or not",
            Coverage::Kept => "kept: nothing is claimed of what it meets",
        }
    }
}

/// An extension of iptables, how far it is modelled, and what to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name after `-m` or `-j`.
    pub name: &'static str,
    /// How far it is modelled.
    pub coverage: Coverage,
    /// What to know of it; may be empty.
    pub note: &'static str,
}

const fn of(name: &'static str, coverage: Coverage, note: &'static str) -> Extension {
    Extension { name, coverage, note }
}

/// The matches, by name.
///
/// ```
/// use lab_core::formats::iptables::{Coverage, MATCHES};
/// let limit = MATCHES.iter().find(|m| m.name == "limit").unwrap();
/// assert_eq!(limit.coverage, Coverage::Quiet);
/// ```
pub const MATCHES: &[Extension] = &[
    of("addrtype", Exact, ""),
    of("ah", Either, "IPsec"),
    of("bpf", Either, ""),
    of("cgroup", Either, "the sender's control group"),
    of("cluster", Either, ""),
    of("comment", Exact, "always holds"),
    of("connbytes", Either, "traffic so far"),
    of("connlabel", Either, ""),
    of("connlimit", Either, "connections at the time"),
    of("connmark", Exact, ""),
    of("conntrack", Exact, "`--ctexpire` depends on time: it may hold or not"),
    of("cpu", Either, ""),
    of("dccp", Either, ""),
    of("devgroup", Either, ""),
    of("dscp", Exact, ""),
    of("dst", Either, "IPv6 destination options"),
    of("ecn", Either, ""),
    of("esp", Either, "IPsec"),
    of("eui64", Either, ""),
    of("frag", Either, "IPv6 fragment header"),
    of("hashlimit", Quiet, "`--hashlimit-upto` holds, `--hashlimit-above` does not"),
    of("hbh", Either, "IPv6 hop-by-hop options"),
    of("helper", Either, ""),
    of("hl", Exact, ""),
    of("icmp", Exact, ""),
    of("icmp6", Exact, ""),
    of("ipcomp", Either, "IPsec"),
    of("iprange", Exact, ""),
    of("ipv6header", Either, ""),
    of("ipvs", Either, ""),
    of("length", Exact, ""),
    of("limit", Quiet, "holds"),
    of("mac", Exact, ""),
    of("mark", Exact, ""),
    of("mh", Either, "Mobile IPv6"),
    of("multiport", Exact, ""),
    of("nfacct", Quiet, "holds; one with a quota holds only once that is used up"),
    of("osf", Either, "a guess at the sender's system"),
    of("owner", Either, "who owns the sender's socket"),
    of("physdev", Exact, ""),
    of("pkttype", Exact, ""),
    of("policy", Either, "IPsec"),
    of("quota", Either, "traffic so far"),
    of("rateest", Either, "traffic so far"),
    of("realm", Either, ""),
    of("recent", Either, "packets seen before"),
    of("rpfilter", Exact, ""),
    of("rt", Either, "IPv6 routing header"),
    of("sctp", Exact, "`--chunk-types` may hold or not"),
    of("set", Exact, "options that count or limit may hold or not"),
    of("socket", Either, ""),
    of("srh", Either, "IPv6 segment routing"),
    of("state", Exact, ""),
    of("statistic", Chance, ""),
    of("string", Either, "what a packet carries"),
    of("tcp", Exact, "`--tcp-option` may hold or not"),
    of("tcpmss", Either, ""),
    of("time", Either, "the time of day"),
    of("tos", Exact, ""),
    of("ttl", Exact, ""),
    of("u32", Either, "any bytes of a packet"),
    of("udp", Exact, ""),
];

/// The targets, by name. Those that every table has (`ACCEPT`, `DROP`,
/// `RETURN`, chains) are exact.
pub const TARGETS: &[Extension] = &[
    of("AUDIT", Harmless, ""),
    of("CHECKSUM", Harmless, ""),
    of("CLASSIFY", Harmless, "queues of a device"),
    of("CLUSTERIP", Kept, ""),
    of("CONNMARK", Exact, "`--left-shift-mark` and `--right-shift-mark` are kept"),
    of("CONNSECMARK", Harmless, ""),
    of("CT", Exact, "`--notrack` and zones that are told; helpers, events and timeouts are kept"),
    of("DNAT", Exact, ""),
    of("DNPT", Kept, "prefix translation without state"),
    of("DSCP", Exact, ""),
    of("ECN", Kept, ""),
    of("HL", Exact, ""),
    of("HMARK", Kept, "a mark by hash"),
    of("IDLETIMER", Harmless, ""),
    of("LED", Harmless, ""),
    of("LOG", Harmless, ""),
    of("MARK", Exact, ""),
    of("MASQUERADE", Exact, ""),
    of("NETMAP", Exact, ""),
    of("NFLOG", Harmless, ""),
    of("NFQUEUE", Kept, "a program decides"),
    of("NOTRACK", Exact, ""),
    of("RATEEST", Harmless, ""),
    of("REDIRECT", Exact, ""),
    of("REJECT", Exact, ""),
    of("SECMARK", Harmless, ""),
    of("SET", Kept, "changes a set"),
    of("SNAT", Exact, ""),
    of("SNPT", Kept, "prefix translation without state"),
    of("SYNPROXY", Kept, ""),
    of("TCPMSS", Harmless, "the size of later segments"),
    of("TCPOPTSTRIP", Kept, ""),
    of("TEE", Kept, "a copy goes elsewhere"),
    of("TOS", Exact, ""),
    of("TPROXY", Kept, "a local socket takes it"),
    of("TRACE", Harmless, ""),
    of("TTL", Exact, ""),
    of("ULOG", Harmless, ""),
];

/// The text of `MATCHES.md`.
pub fn coverage_table() -> String {
    let mut text = String::from(
        "# Matches and targets of iptables\n\n\
         Every extension of iptables-extensions(8), 1.8.9. Printed from the list in\n\
         `src/formats/iptables/coverage.rs`; a test fails where the two differ. An option\n\
         that is not known to an extension makes that rule's use of it one that is kept.\n\
         What is kept keeps its text, and `lab show` lists it.\n",
    );
    for (title, flag, list) in [("Matches", "-m", MATCHES), ("Targets", "-j", TARGETS)] {
        text.push_str(&format!("\n## {title}\n\n| extension | modelled | to know |\n|---|---|---|\n"));
        for extension in list {
            let Extension { name, coverage, note } = extension;
            text.push_str(&format!("| `{flag} {name}` | {} | {note} |\n", coverage.words()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use super::super::options;
    use super::*;

    #[test]
    fn the_table_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("MATCHES.md");
        if std::env::var_os("LAB_WRITE_TABLE").is_some() {
            std::fs::write(&path, coverage_table()).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == coverage_table(), "MATCHES.md is out of date: run this test with LAB_WRITE_TABLE=1");
    }

    #[test]
    fn the_list_says_what_the_reader_knows() {
        for item in MATCHES {
            assert_eq!(options::of_match(item.name).is_none(), item.coverage == Either, "{}", item.name);
        }
        for item in TARGETS {
            assert_eq!(options::of_target(item.name).is_none(), item.coverage == Kept, "{}", item.name);
            let harmless = options::of_effectless(item.name).is_some();
            assert_eq!(harmless, item.coverage == Harmless, "{}", item.name);
        }
        for list in [MATCHES, TARGETS] {
            assert!(list.windows(2).all(|pair| pair[0].name < pair[1].name), "not in order");
        }
    }

    /// Names in capitals are targets; these are no extensions of their own.
    fn listed(name: &str) -> bool {
        let list = if name.starts_with(|c: char| c.is_ascii_uppercase()) { TARGETS } else { MATCHES };
        ["standard", "NAT"].contains(&name) || list.iter().any(|item| item.name == name)
    }

    #[test]
    fn every_module_that_is_installed_is_listed() {
        let mut seen = BTreeSet::new();
        for entry in std::fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
            for module in std::fs::read_dir(entry.path().join("xtables")).into_iter().flatten().flatten() {
                let name = module.file_name().to_string_lossy().into_owned();
                let kinds = ["libxt_", "libipt_", "libip6t_"];
                let name = kinds.iter().find_map(|kind| name.strip_prefix(kind)?.strip_suffix(".so"));
                seen.extend(name.map(str::to_owned));
            }
        }
        if seen.is_empty() {
            eprintln!("SKIPPED: no modules of iptables are installed here");
        }
        let missing: Vec<&String> = seen.iter().filter(|name| !listed(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_extension_of_the_manual_is_listed() {
        let page = Command::new("zcat").arg("/usr/share/man/man8/iptables-extensions.8.gz").output();
        let Some(page) = page.ok().filter(|page| page.status.success()) else {
            eprintln!("SKIPPED: iptables-extensions(8) is not installed here");
            return;
        };
        let page = String::from_utf8_lossy(&page.stdout).into_owned();
        let names = page.lines().filter_map(|line| line.strip_prefix(".SS ")?.split_whitespace().next());
        let missing: Vec<&str> = names.filter(|name| !listed(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
