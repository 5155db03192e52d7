//! Bytes of one simulated file: what readers see, and what would survive a loss of power.
//!
//! The content is sparse pages. A write to a page that was durable keeps the page's old image and the set of sectors
//! written since; a sync drops the images. So a sync costs what was written, not the size of the file, and a crash can
//! decide for each unsynced sector alone.

use std::collections::BTreeMap;

use super::seed::Seed;

/// Bytes of a page of the simulated cache.
pub(super) const PAGE: usize = 4096;
/// Bytes that the simulated device writes at once.
pub(super) const SECTOR: usize = 512;

type Image = Box<[u8; PAGE]>;

/// A page's content before its unsynced writes; `None` means that it was all zeros or past the end.
#[derive(Debug, Default)]
struct Before {
    image: Option<Image>,
    /// One bit for each sector written since.
    sectors: u8,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Image>,
    /// Unsynced pages.
    before: BTreeMap<u64, Before>,
    /// Pages whose sync failed: the cache believes them clean, the device never got them (I3 is why callers must stop).
    lost: BTreeMap<u64, Before>,
    len: u64,
    durable_len: u64,
}

/// Part of a page that a range of bytes covers.
struct Span {
    page: u64,
    /// First byte within the page.
    from: usize,
    /// Bytes within the page.
    count: usize,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Pages that a write of `len` bytes at `offset` would add.
    pub(super) fn pages_added(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE as u64, (offset + len - 1) / PAGE as u64);
        (last - first + 1) - self.pages.range(first..=last).count() as u64
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let there = self.len.saturating_sub(offset);
        let count = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let mut done = 0;
        for span in spans(offset, count) {
            let target = &mut buf[done..done + span.count];
            match self.pages.get(&span.page) {
                Some(page) => target.copy_from_slice(&page[span.from..span.from + span.count]),
                None => target.fill(0),
            }
            done += span.count;
        }
        count
    }

    /// Writes; `track` is false where crashes are not simulated.
    pub(super) fn write(&mut self, buf: &[u8], offset: u64, track: bool) {
        if buf.is_empty() {
            return;
        }
        let mut done = 0;
        for span in spans(offset, buf.len()) {
            if track {
                self.remember(&span);
            }
            let page = self.pages.entry(span.page).or_insert_with(zero_page);
            page[span.from..span.from + span.count].copy_from_slice(&buf[done..done + span.count]);
            done += span.count;
        }
        self.len = self.len.max(offset + buf.len() as u64);
        if !track {
            self.durable_len = self.len;
        }
    }

    pub(super) fn set_len(&mut self, len: u64, track: bool) {
        if len < self.len {
            let keep = len.div_ceil(PAGE as u64);
            let cut: Vec<u64> = self.pages.range(keep..).map(|(&page, _)| page).collect();
            for page in cut {
                if track {
                    self.remember(&Span { page, from: 0, count: PAGE });
                }
                self.pages.remove(&page);
            }
            self.zero_after(len, track);
        }
        self.len = len;
        if !track {
            self.durable_len = len;
        }
    }

    /// What follows the end within its page reads as zeros if the file grows again.
    fn zero_after(&mut self, len: u64, track: bool) {
        let (page, from) = split(len);
        if from == 0 || !self.pages.contains_key(&page) {
            return;
        }
        if track {
            self.remember(&Span { page, from, count: PAGE - from });
        }
        if let Some(page) = self.pages.get_mut(&page) {
            page[from..].fill(0);
        }
    }

    fn remember(&mut self, span: &Span) {
        let before = match self.before.entry(span.page) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let lost = self.lost.remove(&span.page);
                let clean = || Before { image: self.pages.get(&span.page).cloned(), sectors: 0 };
                // A page is dirty as a whole: what a failed sync left behind in it goes to the device with the rest.
                entry.insert(lost.unwrap_or_else(clean))
            }
        };
        let (first, last) = (span.from / SECTOR, (span.from + span.count - 1) / SECTOR);
        for sector in first..=last {
            before.sectors |= 1 << sector;
        }
    }

    /// A sync that worked.
    pub(super) fn sync(&mut self) {
        self.before.clear();
        self.durable_len = self.len;
    }

    /// A sync that failed: what was dirty is taken for clean and is not on the device.
    pub(super) fn fail_sync(&mut self) {
        for (page, before) in std::mem::take(&mut self.before) {
            self.lost.entry(page).or_insert(before);
        }
    }

    /// Loss of power: each unsynced sector stays, goes or is torn.
    pub(super) fn crash(&mut self, seed: &mut Seed) {
        let live_len = self.len;
        let len = if live_len == self.durable_len {
            live_len
        } else {
            let (low, high) = (live_len.min(self.durable_len), live_len.max(self.durable_len));
            match seed.below(3) {
                0 => self.durable_len,
                1 => live_len,
                _ => low + seed.below(high - low + 1),
            }
        };
        for (page, before) in std::mem::take(&mut self.lost) {
            self.restore(page, &before, &mut |_| 0);
        }
        // One mood a crash, so that "everything landed" and "nothing landed" are common outcomes.
        let mood = seed.below(4);
        for (page, before) in std::mem::take(&mut self.before) {
            self.restore(page, &before, &mut |seed_bytes| match mood {
                0 => 0,
                1 => seed_bytes,
                _ => match seed.below(8) {
                    0..=3 => 0,
                    4..=6 => seed_bytes,
                    _ => usize::try_from(seed.below(SECTOR as u64)).unwrap_or(0),
                },
            });
        }
        // Pages of the old end may have come back: they go with the cut, so that later growth shows zeros.
        self.len = u64::MAX;
        self.set_len(len, false);
    }

    /// Puts a page's old content back, but for the first `landed(SECTOR)` bytes of each sector that was written.
    fn restore(&mut self, page: u64, before: &Before, landed: &mut dyn FnMut(usize) -> usize) {
        let mut image = before.image.clone().unwrap_or_else(zero_page);
        let live = self.pages.remove(&page);
        for sector in 0..PAGE / SECTOR {
            let from = sector * SECTOR;
            let kept = if before.sectors & (1 << sector) == 0 { SECTOR } else { landed(SECTOR) };
            match &live {
                Some(live) => image[from..from + kept].copy_from_slice(&live[from..from + kept]),
                None => image[from..from + kept].fill(0),
            }
        }
        if image.iter().any(|&byte| byte != 0) {
            self.pages.insert(page, image);
        }
    }

    /// Bit rot: the flipped bit is seen by readers and survives crashes. False past the end.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) -> bool {
        if offset >= self.len {
            return false;
        }
        let (page, at) = split(offset);
        let mask = 1_u8 << (bit % 8);
        self.pages.entry(page).or_insert_with(zero_page)[at] ^= mask;
        for images in [&mut self.before, &mut self.lost] {
            if let Some(image) = images.get_mut(&page).and_then(|before| before.image.as_mut()) {
                image[at] ^= mask;
            }
        }
        true
    }
}

fn zero_page() -> Image {
    Box::new([0; PAGE])
}

/// Page and byte within it.
fn split(offset: u64) -> (u64, usize) {
    (offset / PAGE as u64, usize::try_from(offset % PAGE as u64).unwrap_or(0))
}

fn spans(offset: u64, len: usize) -> impl Iterator<Item = Span> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let (page, from) = split(offset + done as u64);
        let count = (PAGE - from).min(len - done);
        done += count;
        Some(Span { page, from, count })
    })
}
