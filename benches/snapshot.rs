//! Reading a rule set and stepping one packet through it, by size: the nat
//! table that kube-proxy writes for n Services of three endpoints each.

// criterion_group! makes a public function without a doc comment.
#![allow(missing_docs)]

use std::path::Path;

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use lab_core::addr::Family;
use lab_core::formats::iptables;
use lab_core::query::{ends, trace};
use lab_core::Lab;

#[allow(dead_code)]
#[path = "bars/kube_proxy.rs"]
mod kube_proxy;

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read iptables-save, Services");
    group.sample_size(10);
    for services in [100, 1_000, 10_000] {
        let text = kube_proxy::table(services);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(services), &text, |b, text| {
            b.iter_with_large_drop(|| iptables::parse("iptables.save", text, Family::Ipv4));
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
