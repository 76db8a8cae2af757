//! Checks the kept records, writes down what they are read as (`--bless`), takes new ones from a recording
//! (`--capture FILE`).

use anyhow::{Result, bail};
use haechi_tests::golden;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let count = match args[..] {
        [] => golden::check(false)?,
        ["--bless"] => golden::check(true)?,
        ["--capture", file] => golden::capture(file.as_ref())?,
        _ => bail!("golden [--bless | --capture FILE]"),
    };
    println!("golden: {count} records");
    Ok(())
}
