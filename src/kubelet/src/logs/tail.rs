//! Where the last lines of a log begin, found from its end.

use std::io::{self, Read, Seek, SeekFrom};

use super::format::{Stream, parse};

const BLOCK_BYTES: u64 = 64 << 10;
/// The start of a line that says of which stream it is and whether it is full.
const HEAD_BYTES: usize = 128;

/// Whether a container's line ends with this line of the file. What a stream's newest line has so far counts too.
fn ends_line(head: &[u8], stream: Option<Stream>, newest: bool) -> bool {
    parse(head).is_some_and(|l| stream.is_none_or(|s| s == l.stream) && (l.full || newest))
}

/// Puts the piece before the head.
fn prepend(head: &mut Vec<u8>, piece: &[u8]) {
    let mut joined = piece[..piece.len().min(HEAD_BYTES)].to_vec();
    joined.extend_from_slice(&head[..head.len().min(HEAD_BYTES - joined.len())]);
    *head = joined;
}

/// The offset at which the last `lines` lines begin. Only the blocks behind it are read.
pub(super) fn start<F: Read + Seek>(
    file: &mut F,
    lines: u64,
    stream: Option<Stream>,
) -> io::Result<u64> {
    start_by_blocks(file, lines, stream, BLOCK_BYTES)
}

fn start_by_blocks<F: Read + Seek>(
    file: &mut F,
    lines: u64,
    stream: Option<Stream>,
    block_bytes: u64,
) -> io::Result<u64> {
    let mut block_end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(block_end);
    }
    // The line that is being put together ends here; this is its start as far as it was read.
    let (mut line_end, mut head) = (block_end, Vec::new());
    let mut counted = 0;
    let mut block = Vec::new();
    while block_end > 0 {
        let block_start = block_end.saturating_sub(block_bytes);
        file.seek(SeekFrom::Start(block_start))?;
        block.clear();
        file.by_ref()
            .take(block_end - block_start)
            .read_to_end(&mut block)?;
        let mut piece = &block[..];
        while let Some(at) = piece.iter().rposition(|b| *b == b'\n') {
            prepend(&mut head, &piece[at + 1..]);
            if ends_line(&head, stream, counted == 0) {
                if counted == lines {
                    return Ok(line_end);
                }
                counted += 1;
            }
            head.clear();
            line_end = block_start + u64::try_from(at + 1).expect("a length fits");
            piece = &piece[..at];
        }
        prepend(&mut head, piece);
        block_end = block_start;
    }
    let beyond = ends_line(&head, stream, counted == 0) && counted == lines;
    Ok(if beyond { line_end } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const LOG: &str = "t stdout F one\nt stderr P tw\nt stdout F three\nt stderr F o\nt stdout F four\nt stdout P fi\nt stdout P ve\n";

    fn tail(lines: u64, stream: Option<Stream>) -> &'static str {
        let starts: Vec<u64> = [1, 3, 16, 1000]
            .map(|b| start_by_blocks(&mut Cursor::new(LOG), lines, stream, b).expect("read"))
            .into();
        assert!(starts.iter().all(|s| *s == starts[0]), "{starts:?}");
        &LOG[usize::try_from(starts[0]).expect("fits")..]
    }

    #[test]
    fn an_unfinished_line_counts_as_one() {
        assert_eq!(tail(0, None), "");
        assert_eq!(tail(1, None), "t stdout P fi\nt stdout P ve\n");
        assert!(tail(2, None).starts_with("t stdout F four\n"));
        assert!(tail(3, None).starts_with("t stderr F o\n"));
        assert_eq!((tail(5, None), tail(99, None)), (LOG, LOG));
    }

    #[test]
    fn lines_of_another_stream_do_not_count() {
        assert!(tail(2, Some(Stream::Stdout)).starts_with("t stderr F o\nt stdout F four\n"));
        assert_eq!(tail(1, Some(Stream::Stderr)), LOG);
    }

    #[test]
    fn files_without_lines() {
        for text in ["", "\n", "garbage"] {
            assert_eq!(
                start(&mut Cursor::new(text), 1, None).expect("read"),
                0,
                "{text:?}"
            );
        }
    }
}
