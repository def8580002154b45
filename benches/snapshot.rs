//! Reading a rule set and stepping one packet through it, by size: the nat
//! table that kube-proxy writes for n Services of three endpoints each.

// criterion_group! makes a public function without a doc comment.
#![allow(missing_docs)]

use std::fmt::Write as _;
use std::path::Path;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use lab_core::addr::Family;
use lab_core::formats::iptables;
use lab_core::query::{ends, trace};
use lab_core::Lab;

/// kube-proxy's nat table, as iptables-save prints it.
fn kube_proxy(services: u32) -> String {
    let address = |base: u32, n: u32| std::net::Ipv4Addr::from((10 << 24) + (base << 16) + n);
    let mut chains =
        String::from("*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-SERVICES - [0:0]\n");
    let mut rules =
        String::from("-A PREROUTING -j KUBE-SERVICES\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n");
    for s in 0..services {
        // Writing to a String cannot fail.
        let _ = writeln!(chains, ":KUBE-SVC-{s:016X} - [0:0]");
        let ip = address(96, s);
        let _ = writeln!(
            rules,
            "-A KUBE-SERVICES -d {ip}/32 -p tcp -m comment --comment \"ns/svc{s}:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-{s:016X}"
        );
        for (e, chance) in
            [" --probability 0.33333333349", " --probability 0.50000000000", ""].iter().enumerate()
        {
            let (pod, sep) = (address(128, s * 3 + e as u32), format!("KUBE-SEP-{s:012X}{e:04X}"));
            let chance = if chance.is_empty() {
                String::new()
            } else {
                format!(" -m statistic --mode random{chance}")
            };
            let _ = writeln!(chains, ":{sep} - [0:0]");
            let _ = writeln!(
                rules,
                "-A KUBE-SVC-{s:016X} -m comment --comment \"ns/svc{s}:http -> {pod}:8080\"{chance} -j {sep}\n\
                 -A {sep} -s {pod}/32 -m comment --comment \"ns/svc{s}:http\" -j KUBE-MARK-MASQ\n\
                 -A {sep} -p tcp -m comment --comment \"ns/svc{s}:http\" -m tcp -j DNAT --to-destination {pod}:8080"
            );
        }
    }
    format!("{chains}{rules}COMMIT\n")
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read iptables-save, Services");
    group.sample_size(10);
    for services in [100, 1_000, 10_000] {
        let text = kube_proxy(services);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(services), &text, |b, text| {
            b.iter(|| iptables::parse("iptables.save", text, Family::Ipv4));
        });
    }
    group.finish();
}

fn bundled(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/openstack-k8s/05-kubernetes");
    c.bench_function("open the bundled lab", |b| b.iter(|| Lab::open(&path)));
    let Ok(lab) = Lab::open(&path) else { return };
    let (Ok(from), Ok(to)) = (ends::parse(&lab, "master"), ends::parse(&lab, "192.168.100.44")) else {
        return;
    };
    let ping = trace::Question::default();
    c.bench_function("trace a ping and its reply", |b| b.iter(|| trace::trace(&lab, &from, &to, &ping)));
}

criterion_group!(benches, read, bundled);
criterion_main!(benches);
