//! How requests become entries: as many as wait, up to one entry's bytes, never reordered. Pure.

use bytes::Bytes;
use wire::limits::ENTRY_BYTES_MAX;

use super::command::ITEM_HEADER_LEN;

/// Cuts the batches of one request into pieces that each fit one entry; a batch larger than an entry stands alone.
pub(crate) fn pieces(batches: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut pieces = Vec::with_capacity(1);
    let mut piece: Vec<Bytes> = Vec::with_capacity(batches.len());
    let mut bytes = 0;
    for batch in batches {
        let size = batch.len() + ITEM_HEADER_LEN;
        if !piece.is_empty() && !fits(bytes, size) {
            pieces.push(std::mem::take(&mut piece));
            bytes = 0;
        }
        bytes += size;
        piece.push(batch);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// True if `more` bytes fit into an entry that has `bytes` already; the first always fits.
pub(crate) fn fits(bytes: usize, more: usize) -> bool {
    bytes == 0 || bytes.saturating_add(more) <= ENTRY_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_larger_than_an_entry_stands_alone() {
        let large = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
        let small = Bytes::from_static(b"x");
        let cut = pieces(vec![small.clone(), large.clone(), small.clone()]);
        assert_eq!(cut, [vec![small.clone()], vec![large], vec![small]]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered_and_pieces_fit(sizes in proptest::collection::vec(1usize..400_000, 0..12)) {
            let batches: Vec<Bytes> = sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect();
            let cut = pieces(batches.clone());
            for piece in &cut {
                let bytes: usize = piece.iter().map(|batch| batch.len() + ITEM_HEADER_LEN).sum();
                prop_assert!(piece.len() == 1 || bytes <= ENTRY_BYTES_MAX);
            }
            prop_assert_eq!(cut.concat(), batches);
        }
    }
}
