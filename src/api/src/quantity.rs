//! Resource quantities (`resource.Quantity`): decimal and binary suffixes, exact arithmetic, canonical form.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The suffix family that a quantity was written with, kept in its canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `1.5e3`
    DecimalExponent,
    /// `1Ki`
    BinarySi,
    /// `1k`, `1m`
    DecimalSi,
}

/// An amount in units of 10⁻⁹, with the format that it is printed in. The range is ±(2⁶³-1) units, larger values are capped.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// A text that is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseError;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

impl Quantity {
    /// Zero.
    pub const ZERO: Quantity = Quantity {
        nano: 0,
        format: Format::DecimalSi,
    };

    /// A whole number, printed with decimal suffixes.
    pub fn from_units(units: i64) -> Quantity {
        Quantity {
            nano: i128::from(units) * NANO,
            format: Format::DecimalSi,
        }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity {
            nano: i128::from(bytes) * NANO,
            format: Format::BinarySi,
        }
    }

    /// A number of thousandths, printed with decimal suffixes.
    pub fn from_millis(millis: i64) -> Quantity {
        Quantity {
            nano: i128::from(millis) * 1_000_000,
            format: Format::DecimalSi,
        }
    }

    /// The value rounded up to a whole number.
    pub fn units(self) -> i64 {
        saturate(ceil_div(self.nano, NANO))
    }

    /// The value in thousandths, rounded up.
    pub fn millis(self) -> i64 {
        saturate(ceil_div(self.nano, 1_000_000))
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Whether it is less than zero.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Whether it is a whole number.
    pub fn is_integer(self) -> bool {
        self.nano % NANO == 0
    }

    /// The format that it is printed in.
    pub fn format(self) -> Format {
        self.format
    }
}

fn saturate(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

fn ceil_div(n: i128, d: i128) -> i128 {
    n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        let format = if self.nano == 0 {
            other.format
        } else {
            self.format
        };
        Quantity {
            nano: (self.nano + other.nano).clamp(-MAX, MAX),
            format,
        }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let format = if self.nano == 0 {
            other.format
        } else {
            self.format
        };
        Quantity {
            nano: (self.nano - other.nano).clamp(-MAX, MAX),
            format,
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Quantity, ParseError> {
        let (negative, rest) = match s.as_bytes().first() {
            Some(b'-') => (true, &s[1..]),
            Some(b'+') => (false, &s[1..]),
            _ => (false, s),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseError);
        }
        let (base, exponent, format) = scale(suffix).ok_or(ParseError)?;
        let mut nano = digits(whole, fraction, base, exponent);
        if negative {
            nano = -nano;
        }
        Ok(Quantity {
            nano: nano.clamp(-MAX, MAX),
            format,
        })
    }
}

/// `whole.fraction * base^exponent` in nano units, rounded up (away from zero).
fn digits(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    let mut mantissa: i128 = 0;
    let mut decimals: i32 = 0;
    let (mut dropped_scale, mut inexact) = (0, false);
    for (i, c) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let in_fraction = i >= whole.len();
        if mantissa > i128::MAX / 1_000_000_000_000_000 / 16 {
            // Digits past what can matter only decide the rounding.
            inexact |= c != b'0';
            dropped_scale += i32::from(!in_fraction);
            continue;
        }
        mantissa = mantissa * 10 + i128::from(c - b'0');
        decimals += i32::from(in_fraction);
    }
    let mut ten = 9 - decimals + dropped_scale;
    let mut value = mantissa;
    if base == 10 {
        ten += exponent;
    } else {
        value = value.saturating_mul(base.saturating_pow(exponent.unsigned_abs()));
    }
    if ten >= 0 {
        if value == 0 {
            return 0;
        }
        10_i128
            .checked_pow(ten.unsigned_abs())
            .and_then(|p| value.checked_mul(p))
            .unwrap_or(MAX)
    } else {
        match 10_i128.checked_pow(ten.unsigned_abs()) {
            Some(p) => ceil_div(value, p) + i128::from(inexact && value % p == 0),
            None => i128::from(value != 0),
        }
    }
}

fn scale(suffix: &str) -> Option<(i128, i32, Format)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i32); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    if let Some(i) = BINARY.iter().position(|b| *b == suffix) {
        return Some((1024, i32::try_from(i).ok()? + 1, Format::BinarySi));
    }
    if let Some((_, e)) = DECIMAL.iter().find(|(d, _)| *d == suffix) {
        return Some((10, *e, Format::DecimalSi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
    Some((10, exponent.clamp(-64, 64), Format::DecimalExponent))
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi
            && self.nano.abs() >= 1024 * NANO
            && self.nano % NANO == 0;
        if binary {
            let (mut n, mut i) = (self.nano / NANO, 0);
            while n % 1024 == 0 && i < 6 {
                n /= 1024;
                i += 1;
            }
            return write!(f, "{n}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][i]);
        }
        let (mut n, mut exponent) = (self.nano, -9);
        while n % 1000 == 0 && exponent < 18 {
            n /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 {
                write!(f, "{n}")
            } else {
                write!(f, "{n}e{exponent}")
            };
        }
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"]
            [usize::try_from((exponent + 9) / 3).unwrap_or(3)];
        write!(f, "{n}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(s: &str) -> String {
        s.parse::<Quantity>().expect(s).to_string()
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        for (given, want) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("100e1", "1e3"),
            ("12345", "12345"),
            ("1Ki", "1Ki"),
            ("1.5Ki", "1536"),
            ("0.5Ki", "512"),
            ("-2k", "-2k"),
            ("1E", "1E"),
            ("0.0000000001", "1n"),
            ("5u", "5u"),
        ] {
            assert_eq!(canonical(given), want, "{given}");
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for s in [
            "", "-", "1.2.3", "1 k", "1kk", "1ki", "abc", "1e", ".", "1K",
        ] {
            assert!(s.parse::<Quantity>().is_err(), "{s:?}");
        }
    }

    #[test]
    fn huge_values_are_capped_and_tiny_ones_rounded_up() {
        assert_eq!(
            "1e60".parse::<Quantity>().expect("capped").units(),
            i64::MAX
        );
        assert_eq!("1m".parse::<Quantity>().expect("valid").units(), 1);
        assert_eq!("1n".parse::<Quantity>().expect("valid").millis(), 1);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_keep_the_value(n in -1_000_000_000_i64..1_000_000_000, suffix in "(m|k|Ki|Mi|u|n|)") {
            let q: Quantity = format!("{n}{suffix}").parse().expect("valid");
            let again: Quantity = q.to_string().parse().expect("canonical form parses");
            prop_assert_eq!(q, again);
            prop_assert_eq!(again.to_string(), q.to_string());
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(s in ".{0,40}") {
            let _ = s.parse::<Quantity>();
        }
    }
}
