use std::fs;

use proptest::prelude::*;

use super::*;

fn batch(n: usize) -> Batch {
    Batch { topic: format!("dt/{}", n % 3), payload: format!("{n:0>4000}").into_bytes() }
}

fn number(batch: &Batch) -> usize {
    String::from_utf8(batch.payload.clone()).unwrap().parse().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All that is given out.
fn all(spool: &mut Spool) -> Vec<(Position, usize)> {
    std::iter::from_fn(|| spool.next_batch().unwrap())
        .map(|(position, batch)| (position, number(&batch)))
        .collect()
}

fn numbers(spool: &mut Spool) -> Vec<usize> {
    all(spool).into_iter().map(|(_, n)| n).collect()
}

#[test]
fn what_is_delivered_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    for n in 0..40 {
        spool.append(&batch(n)).unwrap();
    }
    assert_eq!(files(folder.path()).len(), 3);
    let out = all(&mut spool);
    assert_eq!(out.iter().map(|(_, n)| *n).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    assert_eq!(spool.next_batch().unwrap(), None);
    // In whatever order the answers come.
    for (position, _) in out.iter().skip(1).rev() {
        spool.delivered(*position);
    }
    assert_eq!(files(folder.path()).len(), 3);
    spool.delivered(out[0].0);
    assert_eq!((files(folder.path()).len(), spool.bytes(), spool.lost()), (0, 0, 0));
    spool.append(&batch(40)).unwrap();
    assert_eq!(numbers(&mut spool), [40]);
}

#[test]
fn what_was_not_delivered_is_given_out_again_also_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    for n in 0..20 {
        spool.append(&batch(n)).unwrap();
    }
    let out = all(&mut spool);
    for n in [0, 1, 2, 4] {
        spool.delivered(out[n].0);
    }
    spool.rewind();
    assert_eq!(numbers(&mut spool), (3..20).collect::<Vec<_>>());
    // A late answer to what was given out before is one.
    spool.delivered(out[3].0);
    spool.close().unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(numbers(&mut spool), (4..20).collect::<Vec<_>>());
    // That one was killed: without a cursor it begins with the segment.
    drop(spool);
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(numbers(&mut spool), (0..20).collect::<Vec<_>>());
    // What comes behind it is in a file of its own.
    spool.append(&batch(20)).unwrap();
    assert_eq!(numbers(&mut spool), [20]);
}

#[test]
fn at_the_limit_the_oldest_go_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 4 * SEGMENT).unwrap();
    let first = (0..3).map(|n| spool.append(&batch(n)).map(|()| spool.next_batch().unwrap().unwrap().0));
    let first: Vec<_> = first.collect::<io::Result<_>>().unwrap();
    spool.delivered(first[0]);
    for n in 3..200 {
        spool.append(&batch(n)).unwrap();
        assert!(spool.bytes() <= 4 * SEGMENT);
    }
    // Of what is gone an answer may still come.
    spool.delivered(first[2]);
    let kept = numbers(&mut spool);
    assert_eq!(kept, (200 - kept.len()..200).collect::<Vec<_>>());
    assert_eq!(spool.lost() as usize, 200 - kept.len() - 1);
    // A limit that was lowered holds at once.
    drop(spool);
    assert!(Spool::open(folder.path(), 0).unwrap().bytes() <= 2 * SEGMENT);
}

#[test]
fn a_cursor_that_says_nothing_is_as_good_as_none() {
    for text in ["", "x y", "1", "77 12", "\u{0}", "1 -4"] {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        spool.append(&batch(1)).unwrap();
        drop(spool);
        fs::write(folder.path().join("cursor"), text).unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        assert_eq!(numbers(&mut spool), [1], "{text:?}");
        // And ids that it names are not used for anything else.
        spool.append(&batch(2)).unwrap();
        assert_eq!(numbers(&mut spool), [2]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a power cut leaves of a file: what comes before it is given out, and what comes after it, too.
    #[test]
    fn what_is_torn_hides_only_itself(cut in 0u64..40_000, noise in prop::collection::vec(any::<u8>(), 0..40)) {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        for n in 0..10 {
            spool.append(&batch(n)).unwrap();
        }
        drop(spool);
        let file = folder.path().join(&files(folder.path())[0]);
        let mut bytes = fs::read(&file).unwrap();
        bytes.truncate(cut as usize);
        bytes.extend(&noise);
        fs::write(&file, &bytes).unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        spool.append(&batch(10)).unwrap();
        let whole = (cut / (8 + 2 + 4 + 4000)).min(10) as usize;
        let expected: Vec<_> = (0..whole).chain([10]).collect();
        let out = all(&mut spool);
        prop_assert_eq!(out.iter().map(|(_, n)| *n).collect::<Vec<_>>(), expected);
        for (position, _) in out {
            spool.delivered(position);
        }
        prop_assert_eq!(files(folder.path()).len(), 0);
    }
}
