//! Whether a text is a cron schedule.

/// The fields of a schedule: least, most, and names.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const DESCRIPTORS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];
/// The prefix of schedules by interval.
const EVERY: &str = "@every ";

/// Checks a schedule.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let every = schedule.strip_prefix(EVERY).is_some_and(is_duration);
        let known = every || DESCRIPTORS.contains(&schedule);
        return if known {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    fields
        .iter()
        .zip(FIELDS)
        .try_for_each(|(field, bounds)| field.split(',').try_for_each(|part| range(part, bounds)))
}

/// A Go duration such as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let unit = rest[digits..].len()
            - rest[digits..]
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        if digits == 0 || !["h", "m", "s", "ms", "us", "ns"].contains(&&rest[digits..digits + unit])
        {
            return false;
        }
        rest = &rest[digits + unit..];
    }
    !text.is_empty()
}

/// One of `*`, `n`, `n-m`, each with an optional `/step`.
fn range(part: &str, (least, most, names): (u32, u32, &[&str])) -> Result<(), String> {
    let number = |s: &str| {
        let named = names
            .iter()
            .position(|n| n.eq_ignore_ascii_case(s))
            .and_then(|i| u32::try_from(i).ok());
        match named {
            Some(i) => Ok(i + least),
            None => s.parse::<u32>().map_err(|_| {
                format!("failed to parse int from {s}: strconv.Atoi: parsing {s:?}: invalid syntax")
            }),
        }
    };
    let (body, step) = part
        .split_once('/')
        .map_or((part, None), |(b, s)| (b, Some(s)));
    let (start, end) = if body == "*" || body == "?" {
        (least, most)
    } else {
        match body.split_once('-') {
            Some((a, b)) => (number(a)?, number(b)?),
            None => {
                let n = number(body)?;
                (n, if step.is_some() { most } else { n })
            }
        }
    };
    if let Some(step) = step
        && number(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if start < least {
        return Err(format!(
            "beginning of range ({start}) below minimum ({least}): {part}"
        ));
    }
    if end > most {
        return Err(format!(
            "end of range ({end}) above maximum ({most}): {part}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {part}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_told_from_other_texts() {
        for good in [
            "*/5 * * * *",
            "0 0 1 jan mon-fri",
            "@hourly",
            "@every 1h30m",
            "1-10/2,30 ? * * 0",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "x",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@never",
            "@every x",
            "a * * * *",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check("x").expect_err("too few"),
            "expected exactly 5 fields, found 1: [x]"
        );
    }
}
