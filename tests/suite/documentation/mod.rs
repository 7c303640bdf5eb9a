//! The pages in `docs/`: every command on them is run, and every name on them exists.
//!
//! | file | concept |
//! |---|---|
//! | `page` | a page's blocks of commands |
//! | `sandbox` | a shell that runs them |
//! | `commands` | each page's commands, run |
//! | `names` | links, metrics, codes and settings that the pages name |

mod commands;
mod names;
mod page;
mod sandbox;
