//! kube-proxy's nat table, made up.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Endpoints of a Service.
pub const ENDPOINTS: u32 = 3;

/// Where pods are: kube-proxy marks what reaches a Service from elsewhere.
const PODS: &str = "10.244.0.0/16";

fn address(base: u32, n: u32) -> Ipv4Addr {
    Ipv4Addr::from((10 << 24) + (base << 16) + n)
}

/// The address of a Service, which listens on TCP port 80.
pub fn service(n: u32) -> Ipv4Addr {
    address(96, n)
}

/// The address of an endpoint of a Service, which listens on TCP port 8080.
pub fn endpoint(service: u32, n: u32) -> Ipv4Addr {
    address(244, service * ENDPOINTS + n)
}

/// The table for so many Services, as `iptables-save` prints it.
pub fn table(services: u32) -> String {
    let mut chains = String::from(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         :KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" \
         -j MASQUERADE --random-fully\n",
    );
    let mut endpoints = String::new();
    let mut portals = String::new();
    let mut balancers = String::new();
    // Writing to a String cannot fail.
    for s in 0..services {
        let (ip, name, chain) = (service(s), format!("ns/svc{s}:http"), format!("KUBE-SVC-{s:016X}"));
        let meant = format!("-d {ip}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 80");
        let _ = writeln!(portals, "-A KUBE-SERVICES {meant} -j {chain}");
        let _ = writeln!(balancers, "-A {chain} ! -s {PODS} {meant} -j KUBE-MARK-MASQ");
        for e in 0..ENDPOINTS {
            let (pod, sep) = (endpoint(s, e), format!("KUBE-SEP-{s:012X}{e:04X}"));
            let chance = match ENDPOINTS - e {
                1 => String::new(),
                left => {
                    // The kernel holds it as so many of 2^31.
                    let part = (f64::from(1_u32 << 31) / f64::from(left)).round() / f64::from(1_u32 << 31);
                    format!(" -m statistic --mode random --probability {part:.11}")
                }
            };
            let _ = writeln!(chains, ":{sep} - [0:0]");
            let _ = writeln!(
                balancers,
                "-A {chain} -m comment --comment \"{name} -> {pod}:8080\"{chance} -j {sep}"
            );
            let _ = writeln!(
                endpoints,
                "-A {sep} -s {pod}/32 -m comment --comment \"{name}\" -j KUBE-MARK-MASQ\n\
                 -A {sep} -p tcp -m comment --comment \"{name}\" -m tcp -j DNAT --to-destination {pod}:8080"
            );
        }
    }
    // iptables-nft-save prints chains in the order of their names.
    chains.push_str(":KUBE-SERVICES - [0:0]\n");
    for s in 0..services {
        let _ = writeln!(chains, ":KUBE-SVC-{s:016X} - [0:0]");
    }
    portals.push_str(
        "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last \
         rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n",
    );
    rules.extend([endpoints, portals, balancers]);
    format!("{chains}{rules}COMMIT\n")
}
