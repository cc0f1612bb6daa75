//! Who knows whom?
