//! Checks the kept records, writes down what they are read as (`--bless`), makes new ones on the running kernel, as
//! root (`--record`).

use anyhow::{Result, bail};
use haechi_tests::harness::Context;
use haechi_tests::{golden, machines};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let count = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => golden::check(false)?,
        ["--bless"] => golden::check(true)?,
        ["--record"] => {
            let haechi = std::env::current_exe()?.with_file_name("haechi");
            golden::record(&Context::new(haechi, machines::detect()?)?)?
        }
        _ => bail!("golden [--bless | --record]"),
    };
    println!("golden: {count} records");
    Ok(())
}
