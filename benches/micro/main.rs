//! How long does the wire take? `cargo bench --bench micro`; instructions, which are exact, are counted by `make callgrind`.

mod operations;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn micro(criterion: &mut Criterion) {
    for mut operation in operations::all() {
        let mut group = criterion.benchmark_group("wire");
        group.throughput(Throughput::Bytes(operation.bytes as u64));
        group.bench_function(operation.name, |bencher| bencher.iter(&mut operation.run));
        group.finish();
    }
}

criterion_group!(benches, micro);
criterion_main!(benches);
