//! The macro that ties a config key's type, default, range and documentation together, so that the struct, the
//! reader, the printer and `docs/config.md` cannot disagree.

use super::kind::Range;

/// One config key as documentation and tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Full name, for example `storage.data_dir`.
    pub path: &'static str,
    /// What may be written, for example `size`.
    pub kind: &'static str,
    /// Default, printed as it could be written.
    pub default: String,
    /// Allowed range in words; empty if every value of the kind is fine.
    pub range: String,
    /// What it does.
    pub meaning: String,
}

/// A key's value with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) path: &'static str,
    pub(super) value: String,
}

/// A value outside its key's range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutOfRange {
    pub(super) path: &'static str,
    pub(super) message: String,
}

/// Joins doc lines and drops the blank that rustdoc keeps at each start.
pub(super) fn join_docs(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

pub(super) fn check_range(
    path: &'static str,
    range: Range,
    number: Option<u64>,
    show: &dyn Fn(u64) -> String,
) -> Option<OutOfRange> {
    let number = number?;
    if range.holds(number) {
        return None;
    }
    Some(OutOfRange {
        path,
        message: format!("{} is out of range: allowed is {}", show(number), range.words(show)),
    })
}

macro_rules! section {
    ($(#[doc = $about:literal])+ pub struct $name:ident = $section:literal {
        $( $(#[doc = $doc:literal])+ pub $field:ident : $type:ty as $kind:ident [$range:expr] = $default:expr; )+
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $name {
            /// Reads one key of this section; `None` if it has no such key.
            fn read(&mut self, field: &str, raw: &$crate::config::tree::Raw) -> Option<Result<(), String>> {
                use $crate::config::kind::Kind as _;
                match field {
                    $( stringify!($field) => Some($crate::config::kind::$kind::read(raw).map(|value| self.$field = value)), )+
                    _ => None,
                }
            }

            fn shown(&self) -> Vec<$crate::config::section::Shown> {
                use $crate::config::kind::Kind as _;
                vec![ $( $crate::config::section::Shown {
                    path: concat!($section, ".", stringify!($field)),
                    value: $crate::config::kind::$kind::show(&self.$field),
                }, )+ ]
            }

            fn out_of_range(&self) -> Vec<$crate::config::section::OutOfRange> {
                use $crate::config::kind::Kind as _;
                [ $( $crate::config::section::check_range(
                    concat!($section, ".", stringify!($field)),
                    $range,
                    $crate::config::kind::$kind::magnitude(&self.$field),
                    &$crate::config::section::shower::<$crate::config::kind::$kind>(),
                ), )+ ].into_iter().flatten().collect()
            }

            fn keys() -> Vec<$crate::config::section::KeyInfo> {
                use $crate::config::kind::Kind as _;
                let defaults = Self::default();
                vec![ $( $crate::config::section::KeyInfo {
                    path: concat!($section, ".", stringify!($field)),
                    kind: $crate::config::kind::$kind::NAME,
                    default: $crate::config::kind::$kind::show(&defaults.$field),
                    range: $range.words($crate::config::section::shower::<$crate::config::kind::$kind>()),
                    meaning: $crate::config::section::join_docs(&[$( $doc ),+]),
                }, )+ ]
            }

            const ABOUT: &'static [&'static str] = &[$( $about ),+];
        }
    };
}
pub(super) use section;

/// Prints the end of a range in the unit of its kind.
pub(super) fn shower<K: super::kind::Kind>() -> impl Fn(u64) -> String {
    use super::kind::{Kind, Millis, Size};
    move |number| match K::NAME {
        name if name.starts_with("duration") => Millis::show(&number),
        name if name.starts_with("size") => Size::show(&number),
        _ => number.to_string(),
    }
}
