//! Provokes one behaviour and says what it did, one JSON line. Usage: `actor VERB [key=value ..]`.

fn main() -> anyhow::Result<()> {
    haechi_tests::actor::run(std::env::args().skip(1))
}
