use crate::addr::Family;

/// An option of an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// The name that it is an alias of, or its own.
    pub means: &'static str,
    /// How many arguments it takes.
    pub arity: usize,
    /// Whether `!` may stand before it.
    pub invert: bool,
}

const fn flag(name: &'static str) -> Spec {
    Spec { name, means: name, arity: 0, invert: false }
}

const fn value(name: &'static str) -> Spec {
    Spec { name, means: name, arity: 1, invert: false }
}

/// An option that takes a value and may be turned round.
const fn test(name: &'static str) -> Spec {
    Spec { name, means: name, arity: 1, invert: true }
}

const fn alias(name: &'static str, means: &'static str) -> Spec {
    Spec { name, means, arity: 1, invert: true }
}

const fn either(name: &'static str, arity: usize) -> Spec {
    Spec { name, means: name, arity, invert: true }
}

const SPORT: Spec = test("sport");
const DPORT: Spec = test("dport");
const SOURCE_PORT: Spec = alias("source-port", "sport");
const DESTINATION_PORT: Spec = alias("destination-port", "dport");

const TCP: &[Spec] = &[
    SPORT,
    SOURCE_PORT,
    DPORT,
    DESTINATION_PORT,
    either("tcp-flags", 2),
    either("syn", 0),
    test("tcp-option"),
];
const UDP: &[Spec] = &[SPORT, SOURCE_PORT, DPORT, DESTINATION_PORT];
const SCTP: &[Spec] = &[SPORT, SOURCE_PORT, DPORT, DESTINATION_PORT, either("chunk-types", 2)];
const MULTIPORT: &[Spec] = &[
    test("sports"),
    alias("source-ports", "sports"),
    test("dports"),
    alias("destination-ports", "dports"),
    test("ports"),
];
const CONNTRACK: &[Spec] = &[
    test("ctstate"),
    test("ctproto"),
    test("ctorigsrc"),
    test("ctorigdst"),
    test("ctreplsrc"),
    test("ctrepldst"),
    test("ctorigsrcport"),
    test("ctorigdstport"),
    test("ctreplsrcport"),
    test("ctrepldstport"),
    test("ctstatus"),
    test("ctexpire"),
    value("ctdir"),
];
const PHYSDEV: &[Spec] = &[
    test("physdev-in"),
    test("physdev-out"),
    either("physdev-is-in", 0),
    either("physdev-is-out", 0),
    either("physdev-is-bridged", 0),
];
const HASHLIMIT: &[Spec] = &[
    test("hashlimit-upto"),
    alias("hashlimit", "hashlimit-upto"),
    test("hashlimit-above"),
    value("hashlimit-burst"),
    value("hashlimit-mode"),
    value("hashlimit-name"),
    value("hashlimit-srcmask"),
    value("hashlimit-dstmask"),
    value("hashlimit-htable-size"),
    value("hashlimit-htable-max"),
    value("hashlimit-htable-expire"),
    value("hashlimit-htable-gcinterval"),
];
const MARK_TARGET: &[Spec] =
    &[value("set-xmark"), value("set-mark"), value("and-mark"), value("or-mark"), value("xor-mark")];
const CONNMARK_TARGET: &[Spec] = &[
    value("set-xmark"),
    value("set-mark"),
    value("and-mark"),
    value("or-mark"),
    value("xor-mark"),
    flag("save-mark"),
    flag("restore-mark"),
    value("nfmask"),
    value("ctmask"),
    value("mask"),
];

/// The options of a match extension that is modelled. An option not listed
/// makes the whole extension unmodelled.
pub(super) fn of_match(name: &str) -> Option<&'static [Spec]> {
    Some(match name {
        "tcp" => TCP,
        "udp" => UDP,
        "sctp" => SCTP,
        "icmp" => const { &[test("icmp-type")] },
        "icmp6" => const { &[test("icmpv6-type")] },
        "multiport" => MULTIPORT,
        "conntrack" => CONNTRACK,
        "state" => const { &[test("state")] },
        "mark" | "connmark" => const { &[test("mark")] },
        "addrtype" => {
            const { &[test("src-type"), test("dst-type"), flag("limit-iface-in"), flag("limit-iface-out")] }
        }
        "set" => {
            const {
                &[
                    either("match-set", 2),
                    Spec { name: "set", means: "match-set", arity: 2, invert: true },
                    either("update-counters", 0),
                    either("update-subcounters", 0),
                ]
            }
        }
        "mac" => const { &[test("mac-source")] },
        "physdev" => PHYSDEV,
        "comment" => const { &[value("comment")] },
        "limit" => const { &[value("limit"), value("limit-burst")] },
        "hashlimit" => HASHLIMIT,
        "statistic" => const { &[value("mode"), test("probability"), test("every"), value("packet")] },
        "dscp" => const { &[test("dscp"), test("dscp-class")] },
        "tos" => const { &[test("tos")] },
        "iprange" => const { &[test("src-range"), test("dst-range")] },
        "length" => const { &[test("length")] },
        "ttl" => const { &[test("ttl-eq"), alias("ttl", "ttl-eq"), value("ttl-lt"), value("ttl-gt")] },
        "hl" => const { &[test("hl-eq"), value("hl-lt"), value("hl-gt")] },
        "pkttype" => const { &[test("pkt-type")] },
        "nfacct" => const { &[value("nfacct-name")] },
        "rpfilter" => const { &[flag("loose"), flag("validmark"), flag("accept-local"), flag("invert")] },
        _ => return None,
    })
}

/// The options of a target extension that is modelled, or that has no effect.
pub(super) fn of_target(name: &str) -> Option<&'static [Spec]> {
    Some(match name {
        "REJECT" => const { &[value("reject-with")] },
        "SNAT" => const { &[value("to-source"), flag("random"), flag("random-fully"), flag("persistent")] },
        "DNAT" => const { &[value("to-destination"), flag("random"), flag("persistent")] },
        "MASQUERADE" => const { &[value("to-ports"), flag("random"), flag("random-fully")] },
        "REDIRECT" => const { &[value("to-ports"), flag("random")] },
        "NETMAP" => const { &[value("to")] },
        "MARK" => MARK_TARGET,
        "CONNMARK" => CONNMARK_TARGET,
        "CT" => const { &[flag("notrack"), value("zone"), value("zone-orig"), value("zone-reply")] },
        "TTL" => const { &[value("ttl-set"), value("ttl-inc"), value("ttl-dec")] },
        "HL" => const { &[value("hl-set"), value("hl-inc"), value("hl-dec")] },
        "DSCP" => const { &[value("set-dscp"), value("set-dscp-class")] },
        "TOS" => const { &[value("set-tos"), value("and-tos"), value("or-tos"), value("xor-tos")] },
        "ACCEPT" | "DROP" | "RETURN" | "NOTRACK" => &[],
        _ => return of_effectless(name),
    })
}

/// The options of a target that changes nothing that decides.
pub(super) fn of_effectless(name: &str) -> Option<&'static [Spec]> {
    Some(match name {
        "LOG" => {
            const {
                &[
                    value("log-level"),
                    value("log-prefix"),
                    flag("log-tcp-sequence"),
                    flag("log-tcp-options"),
                    flag("log-ip-options"),
                    flag("log-uid"),
                    flag("log-macdecode"),
                ]
            }
        }
        "NFLOG" => {
            const {
                &[
                    value("nflog-group"),
                    value("nflog-prefix"),
                    value("nflog-range"),
                    value("nflog-size"),
                    value("nflog-threshold"),
                ]
            }
        }
        "ULOG" => {
            const {
                &[
                    value("ulog-nlgroup"),
                    value("ulog-prefix"),
                    value("ulog-cprange"),
                    value("ulog-qthreshold"),
                ]
            }
        }
        "CHECKSUM" => const { &[flag("checksum-fill")] },
        "TCPMSS" => const { &[value("set-mss"), flag("clamp-mss-to-pmtu")] },
        "TRACE" => &[],
        "AUDIT" => const { &[value("type")] },
        "LED" => const { &[value("led-trigger-id"), value("led-delay"), flag("led-always-blink")] },
        "IDLETIMER" => const { &[value("timeout"), value("label"), flag("alarm"), flag("send_nl_msg")] },
        "RATEEST" => const { &[value("rateest-name"), value("rateest-interval"), value("rateest-ewmalog")] },
        "SECMARK" => const { &[value("selctx")] },
        "CONNSECMARK" => const { &[flag("save"), flag("restore")] },
        "CLASSIFY" => const { &[value("set-class")] },
        _ => return None,
    })
}

/// The name that an extension's other names stand for.
pub(super) fn canonical(name: &str, family: Family) -> &str {
    match (name, family) {
        ("icmpv6" | "ipv6-icmp", Family::Ipv6) => "icmp6",
        _ => name,
    }
}

/// An option that belongs to the rule and to no extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuiltIn {
    /// `-s`.
    Source,
    /// `-d`.
    Destination,
    /// `-i`.
    InInterface,
    /// `-o`.
    OutInterface,
    /// `-p`.
    Protocol,
    /// `-f`.
    Fragment,
    /// `-m`.
    Match,
    /// `-j`.
    Jump,
    /// `-g`.
    Goto,
    /// `-c`.
    Counters,
    /// `-4`, `-6`.
    OnlyFamily(Family),
    /// `-t`, which a line of a file may not have.
    Table,
}

/// Short letter, long name, meaning.
pub(super) const BUILT_IN: [(u8, &str, BuiltIn); 15] = [
    (b's', "source", BuiltIn::Source),
    (b's', "src", BuiltIn::Source),
    (b'd', "destination", BuiltIn::Destination),
    (b'd', "dst", BuiltIn::Destination),
    (b'i', "in-interface", BuiltIn::InInterface),
    (b'o', "out-interface", BuiltIn::OutInterface),
    (b'p', "protocol", BuiltIn::Protocol),
    (b'f', "fragments", BuiltIn::Fragment),
    (b'm', "match", BuiltIn::Match),
    (b'j', "jump", BuiltIn::Jump),
    (b'g', "goto", BuiltIn::Goto),
    (b'c', "set-counters", BuiltIn::Counters),
    (b'4', "ipv4", BuiltIn::OnlyFamily(Family::Ipv4)),
    (b'6', "ipv6", BuiltIn::OnlyFamily(Family::Ipv6)),
    (b't', "table", BuiltIn::Table),
];

impl BuiltIn {
    /// The rule's own option of exactly this spelling, dashes included.
    pub fn exact(word: &str) -> Option<BuiltIn> {
        let found = match word.as_bytes() {
            [b'-', b'-', long @ ..] => BUILT_IN.iter().find(|(_, name, _)| name.as_bytes() == long),
            [b'-', short] => BUILT_IN.iter().find(|(letter, ..)| letter == short),
            _ => None,
        };
        found.map(|(_, _, option)| *option)
    }
}
