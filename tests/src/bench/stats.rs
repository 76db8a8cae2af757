//! Middles and ends of samples, and the clock of one core. Medians, because one disturbed sample must not move a result.

use crate::sys::{Arg, call};

/// The value below which `part` (0 to 1) of the samples lie; 0 of none.
pub(super) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The middle one.
pub(super) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The smallest and the largest; `None` of none.
pub(super) fn spread(samples: &[f64]) -> Option<[f64; 2]> {
    let least = samples.iter().copied().min_by(f64::total_cmp)?;
    let most = samples.iter().copied().max_by(f64::total_cmp)?;
    Some([least, most])
}

/// Seconds that this thread has run: a rate of one core does not depend on who else wants it.
pub(super) fn thread_seconds() -> f64 {
    let mut time = [0_u8; 16];
    // The kernel has had this clock for longer than it has had BPF.
    let _ = call(libc::SYS_clock_gettime, [libc::CLOCK_THREAD_CPUTIME_ID.into(), Arg::Out(&mut time)]);
    let word = |at: usize| time[at..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
    word(0) as f64 + word(8) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&samples, 0.99), median(&samples)), (99.0, 50.0));
        assert_eq!((quantile(&[3.0], 0.01), quantile(&[], 0.5)), (3.0, 0.0));
        assert_eq!(spread(&[2.0, 1.0, 3.0]), Some([1.0, 3.0]));
        assert_eq!(spread(&[]), None);
    }
}
