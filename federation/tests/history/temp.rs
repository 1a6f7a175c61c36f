use crate::consortium::Consortium;
use fedledger_federation::{history::StorageSource, verify::{verify, Options}};
use fedledger_ledger::{Digest, storage::{rocks::RocksStorage, Batch, Column, LogStorage, scan_all}};
use std::{fs, path::Path, io::Cursor, sync::Arc};

fn fill(c: &Consortium, path: &Path) {
    let storage = RocksStorage::open(path).unwrap();
    let mem = c.stored();
    for column in Column::ALL {
        for record in scan_all(&mem, column, Vec::new()) {
            let (k, v) = record.unwrap();
            let mut batch = Batch::default();
            batch.put(column, k, v);
            storage.write(&batch, false).unwrap();
        }
    }
    storage.write(&Batch::default(), true).unwrap();
}

#[test]
#[ignore]
fn temp_rocks() {
    let c = Consortium::with_history(4);
    let root = Path::new("/tmp/h/scratch/node");
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root).unwrap();
    let db = root.join("db");
    fill(&c, &db);
    for reopen in [false, true] {
        if reopen { drop(RocksStorage::open(&db).unwrap()); }
        for entry in fs::read_dir(&db).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_owned();
            let len = fs::metadata(&path).unwrap().len() as usize;
            if name.to_string_lossy().starts_with("MANIFEST") || name.to_string_lossy().starts_with("LOG") || name.to_string_lossy().starts_with("OPTIONS") { continue; }
            if len == 0 { eprintln!("{name:?} empty"); continue; }
            let original = fs::read(&path).unwrap();
            let (mut unnoticed, mut tried, mut errs, mut openerr) = (vec![], 0, 0, 0);
            let step = (len / 60).max(1);
            for at in (0..len).step_by(step) {
                let mut bytes = original.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(&path, &bytes).unwrap();
                tried += 1;
                match RocksStorage::open_read_only(&db) {
                    Err(e) => { openerr += 1; if openerr < 3 { eprintln!("open: {e}"); } }
                    Ok(s) => {
                        let blobs = Arc::clone(&c.blobs);
                        let src = StorageSource::new(s, move |d: &Digest| Ok(blobs.get(d).cloned().map(Cursor::new)));
                        match verify(&src, &Options { recompute: false, ..Options::default() }) {
                            Err(e) => { errs += 1; eprintln!("io: {e}"); }
                            Ok(r) if r.ok => unnoticed.push(at),
                            Ok(_) => {}
                        }
                    }
                }
            }
            fs::write(&path, &original).unwrap();
            eprintln!("{name:?} len {len}: tried {tried}, unnoticed {} {:?}, io errors {errs}, open errors {openerr}", unnoticed.len(), &unnoticed[..unnoticed.len().min(10)]);
        }
    }
}
