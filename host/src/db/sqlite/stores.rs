//! What plugins keep and spend.

use super::super::fault::answered;
use super::SqliteDb;
use super::{buckets, memories, spending};
use crate::db::*;
use async_trait::async_trait;
use chrono::NaiveDate;
use std::sync::Arc;
use uuid::Uuid;

stores_by_statements!(SqliteDb, read: read, write: write);
