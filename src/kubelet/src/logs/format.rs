//! The CRI log format, and what of it is shown.

use jiff::Timestamp;

/// A line longer than this is shown as it comes in, instead of being held back until its end.
const HELD_BYTES_MAX: usize = 256 << 10;
/// Digits of the fraction of a second in shown timestamps, so that they line up.
const FRACTION_DIGITS: usize = 9;

/// One of a container's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only what was written at or after this time.
    pub since: Option<Timestamp>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// The most bytes.
    pub limit_bytes: Option<u64>,
    /// Only one stream.
    pub stream: Option<Stream>,
}

/// A line of a log file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) time: &'a str,
    pub(super) stream: Stream,
    /// Whether the container's line ends with it.
    pub(super) full: bool,
    pub(super) text: &'a [u8],
}

/// Reads a line, without its newline; `None` for what is not in the format.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Further tags may follow after a colon.
    let full = match parts.next()?.split(|b| *b == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Line {
        time,
        stream,
        full,
        text: parts.next()?,
    })
}

/// The time with a fraction of fixed length.
fn fixed_width(time: &str) -> String {
    let zone_at = time
        .find('T')
        .and_then(|t| time[t..].find(['Z', '+', '-']).map(|z| t + z))
        .unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    format!("{seconds}.{fraction:0<FRACTION_DIGITS$}{zone}")
}

/// The rest of a line that was too long to be held back.
#[derive(Clone, Copy)]
struct Overlong {
    shown: bool,
    full: bool,
}

/// Turns the bytes of a log file into what is shown.
pub(super) struct Formatter {
    options: Options,
    held: Vec<u8>,
    overlong: Option<Overlong>,
    /// Whether a piece without an end was the last of stdout, of stderr.
    open: [bool; 2],
    reached_since: bool,
    left: Option<u64>,
}

impl Formatter {
    pub(super) fn new(options: Options) -> Formatter {
        Formatter {
            held: Vec::new(),
            overlong: None,
            open: [false; 2],
            reached_since: options.since.is_none(),
            left: options.limit_bytes,
            options,
        }
    }

    /// Whether all bytes that are allowed were given out.
    pub(super) fn is_exhausted(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes the next bytes of the file and appends what is to be shown.
    pub(super) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() && !self.is_exhausted() {
            let newline = bytes.iter().position(|b| *b == b'\n');
            let (piece, rest) = newline.map_or((bytes, &bytes[bytes.len()..]), |at| {
                (&bytes[..at], &bytes[at + 1..])
            });
            bytes = rest;
            if let Some(o) = self.overlong {
                self.show_if(o.shown, piece, out);
                if newline.is_some() {
                    self.show_if(o.shown && o.full, b"\n", out);
                    self.overlong = None;
                }
                continue;
            }
            if newline.is_some() && self.held.is_empty() {
                self.line(piece, true, out);
                continue;
            }
            self.held.extend_from_slice(piece);
            if newline.is_some() {
                let held = std::mem::take(&mut self.held);
                self.line(&held, true, out);
            } else if self.held.len() > HELD_BYTES_MAX {
                let held = std::mem::take(&mut self.held);
                self.overlong = Some(self.line(&held, false, out));
            }
        }
    }

    /// Shows what was held back at the end of the file.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.line(&held, false, out);
        }
        self.overlong = None;
    }

    fn line(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) -> Overlong {
        let hidden = Overlong {
            shown: false,
            full: false,
        };
        let Some(line) = parse(line) else {
            return hidden;
        };
        if self.options.stream.is_some_and(|s| s != line.stream) {
            return hidden;
        }
        if !self.reached_since {
            let Ok(time) = line.time.parse::<Timestamp>() else {
                return hidden;
            };
            if self.options.since.is_some_and(|since| time < since) {
                return hidden;
            }
            self.reached_since = true;
        }
        let open = &mut self.open[usize::from(line.stream == Stream::Stderr)];
        let continues = std::mem::replace(open, !line.full);
        if self.options.timestamps && !continues {
            self.show(format!("{} ", fixed_width(line.time)).as_bytes(), out);
        }
        self.show(line.text, out);
        if ended && line.full {
            self.show(b"\n", out);
        }
        Overlong {
            shown: true,
            full: line.full,
        }
    }

    fn show_if(&mut self, shown: bool, bytes: &[u8], out: &mut Vec<u8>) {
        if shown {
            self.show(bytes, out);
        }
    }

    fn show(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let allowed = self.left.map_or(bytes.len(), |l| {
            usize::try_from(l).unwrap_or(usize::MAX).min(bytes.len())
        });
        out.extend_from_slice(&bytes[..allowed]);
        if let Some(left) = &mut self.left {
            *left -= u64::try_from(allowed).expect("a length fits");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-20T10:00:00.1Z stdout F one\n\
        2026-11-20T10:00:01.25+02:00 stderr P two \n\
        2026-11-20T10:00:02Z stdout F three\n\
        not in the format\n\
        2026-11-20T10:00:03.000000001Z stderr F and a half\n\
        2026-11-20T10:00:04Z stdout F:tag \n";

    fn shown(options: &Options, block_bytes: usize) -> String {
        let (mut f, mut out) = (Formatter::new(options.clone()), Vec::new());
        for block in LOG.as_bytes().chunks(block_bytes) {
            f.feed(block, &mut out);
        }
        f.finish(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn pieces_are_joined_however_the_file_is_read() {
        for block_bytes in [1, 7, 64, 4096] {
            assert_eq!(
                shown(&Options::default(), block_bytes),
                "one\ntwo three\nand a half\n\n"
            );
        }
    }

    #[test]
    fn one_stream_and_its_times() {
        let o = Options {
            stream: Some(Stream::Stderr),
            timestamps: true,
            ..Options::default()
        };
        assert_eq!(
            shown(&o, 5),
            "2026-11-20T10:00:01.250000000+02:00 two and a half\n"
        );
        let o = Options {
            stream: Some(Stream::Stdout),
            timestamps: true,
            ..Options::default()
        };
        let want = "2026-11-20T10:00:00.100000000Z one\n2026-11-20T10:00:02.000000000Z three\n2026-11-20T10:00:04.000000000Z \n";
        assert_eq!(shown(&o, 5), want);
    }

    #[test]
    fn what_is_older_is_left_out() {
        let since = "2026-11-20T10:00:02Z".parse().expect("a time");
        assert_eq!(
            shown(
                &Options {
                    since: Some(since),
                    ..Options::default()
                },
                64
            ),
            "three\nand a half\n\n"
        );
        let since = "2026-11-20T11:00:00Z".parse().expect("a time");
        assert_eq!(
            shown(
                &Options {
                    since: Some(since),
                    ..Options::default()
                },
                64
            ),
            ""
        );
    }

    #[test]
    fn the_limit_cuts_within_a_line() {
        for (limit, want) in [(0, ""), (2, "on"), (4, "one\n"), (6, "one\ntw")] {
            assert_eq!(
                shown(
                    &Options {
                        limit_bytes: Some(limit),
                        ..Options::default()
                    },
                    64
                ),
                want
            );
        }
    }

    #[test]
    fn a_line_without_end_is_shown_at_the_end_of_the_file_and_held_until_then() {
        let (mut f, mut out) = (Formatter::new(Options::default()), Vec::new());
        f.feed(b"2026-11-20T10:00:00Z stdout F cut", &mut out);
        assert!(out.is_empty());
        f.finish(&mut out);
        assert_eq!(out, b"cut");
    }

    #[test]
    fn a_huge_line_is_shown_as_it_comes() {
        let (mut f, mut out) = (Formatter::new(Options::default()), Vec::new());
        f.feed(b"2026-11-20T10:00:00Z stdout F ", &mut out);
        for _ in 0..9 {
            f.feed(&[b'x'; 64 << 10], &mut out);
            assert!(f.held.len() <= HELD_BYTES_MAX + (64 << 10));
        }
        f.feed(b"end\n2026-11-20T10:00:00Z stdout F next\n", &mut out);
        assert_eq!(out.len(), 9 * (64 << 10) + "end\nnext\n".len());
        assert!(out.ends_with(b"xend\nnext\n"));
    }
}
