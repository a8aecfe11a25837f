//! Small reference models that judge the core: linear scans and arithmetic, no tables and no timers.

pub mod router;
