//! Exponential backoff with jitter.

use std::time::Duration;

use rand::Rng;

/// Doubles a delay from `initial` to `max`; each delay is spread by up to a fifth, so that peers do not march in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// A backoff that starts at `initial` and stays at `max`.
    pub fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff {
            initial,
            max,
            next: initial,
        }
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (self.next * 2).min(self.max);
        delay.mul_f64(rand::rng().random_range(0.8..=1.0))
    }

    /// Starts again from the initial delay, after a success.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_again() {
        let mut b = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let bounds = [(80, 100), (160, 200), (280, 350), (280, 350)];
        for (low, high) in bounds {
            let d = b.next_delay().as_millis();
            assert!((low..=high).contains(&d), "{d} ms");
        }
        b.reset();
        assert!(b.next_delay() <= Duration::from_millis(100));
    }
}
