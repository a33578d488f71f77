//! Sources of training data: what they read, what is wrong with what, and that order and place hold.

#![cfg(feature = "train")]
#![allow(missing_docs)]

use std::{
    fs::{self, File},
    io::Cursor,
    path::Path,
};

use image::{ImageFormat, Rgb, RgbImage};
use tempfile::{TempDir, tempdir};
use unclip_core::{
    error::Error,
    train::{
        Captioned, EmbeddedCaption, Loader, Samples,
        data::{
            Embeddings, InMemory, Layout, PictureFolder, Shards, layout, open, write_embeddings,
        },
    },
};

/// A picture whose colour says its number.
fn png(number: u8) -> Vec<u8> {
    let picture = RgbImage::from_pixel(5, 4, Rgb([number, 7, 9]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn put(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Number and caption of a sample, or what is wrong with it.
fn told(samples: &dyn Samples<Item = Captioned>, index: usize, draw: u64) -> String {
    match samples.get(index, draw) {
        Ok(sample) => format!("{} {}", sample.picture.get_pixel(0, 0)[0], sample.caption),
        Err(error) => format!("{}: {error}", samples.name(index)),
    }
}

fn all(samples: &dyn Samples<Item = Captioned>) -> Vec<String> {
    (0..samples.len()).map(|i| told(samples, i, 0)).collect()
}

fn message<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("it was read"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn pictures_with_captions_beside_them() {
    let folder = tempdir().unwrap();
    put(&folder, "b.png", png(2));
    put(&folder, "b.txt", "two\n\n zwei \r\n");
    put(&folder, "deep/a.PNG", png(1));
    put(&folder, "deep/a.txt", "\u{feff}one");
    put(&folder, "c.png", png(3));
    put(&folder, "d.png", b"no picture");
    put(&folder, "d.txt", "four");
    put(&folder, "e.png", &png(5)[..40]);
    put(&folder, "e.txt", "five");
    put(&folder, "f.png", png(6));
    put(&folder, "f.txt", b"six \xff");
    put(&folder, "g.png", png(7));
    put(&folder, "g.txt", "\n \n");
    put(&folder, ".hidden.png", png(9));
    put(&folder, "notes.md", "");
    assert_eq!(layout(folder.path()).unwrap(), Layout::Pictures);
    let samples = open(folder.path()).unwrap();
    let found = all(&*samples);
    assert_eq!(found.len(), 7);
    assert_eq!([&found[0][..], &found[3]], ["2 two", "1 one"]);
    assert_eq!(told(&*samples, 0, 1), "2 zwei");
    for (at, expected) in [
        (1, "c.txt does not exist: each picture has its captions"),
        (2, "d.png: d.png: not a readable picture"),
        (4, "e.png: e.png: not a readable picture"),
        (5, "f.txt: not UTF-8"),
        (6, "g.png: g.png: it has no caption"),
    ] {
        assert!(found[at].contains(expected), "{}", found[at]);
    }
}

#[test]
fn pictures_of_a_csv() {
    let folder = tempdir().unwrap();
    put(&folder, "a.png", png(1));
    put(&folder, "in/b.png", png(2));
    let list = b"\xef\xbb\xbfid, file_name,caption\n\
        0,a.png,\"one, with a \"\"comma\"\"\"\n\
        1,in/b.png,two\n\
        2,a.png,eins\n\
        3,gone.png,three\n\
        4,a\xff.png,four\n\
        5\n\
        6,in/b.png,\n";
    put(&folder, "captions.csv", list);
    let samples = open(folder.path()).unwrap();
    let found = all(&*samples);
    assert_eq!(found.len(), 5);
    assert_eq!(found[..2], ["1 one, with a \"comma\"", "2 two"]);
    assert_eq!(
        [told(&*samples, 0, 1), told(&*samples, 1, 1)],
        ["1 eins", "2 two"]
    );
    assert!(found[2].starts_with("gone.png:") && found[2].contains("does not exist"));
    assert!(found[3].starts_with("captions.csv, line 6: ") && found[3].contains("not UTF-8"));
    assert!(
        found[4].contains("line 7: no picture is named"),
        "{}",
        found[4]
    );

    let list = folder.path().join("captions.csv");
    let message = message(PictureFolder::with_columns(&list, "file_name", "prompt"));
    assert!(message.contains("no column of captions: expected prompt, found id, file_name"));
    put(&folder, "captions.csv", "a,b\n1,2\n");
    let path = folder.path().join("captions.csv");
    assert!(
        PictureFolder::open(&path)
            .unwrap_err()
            .to_string()
            .contains("no column of pictures")
    );
    put(&folder, "captions.csv", "pic,words\na.png,one\n");
    let own = PictureFolder::with_columns(folder.path(), "pic", "words").unwrap();
    assert_eq!(all(&own), ["1 one"]);
    put(&folder, "captions.csv", "image,text\n");
    assert!(
        open(folder.path())
            .err()
            .unwrap()
            .to_string()
            .contains("lists no pictures")
    );
}

#[test]
fn pictures_of_a_jsonl() {
    let folder = tempdir().unwrap();
    put(&folder, "a.png", png(1));
    put(&folder, "b.png", png(2));
    let list = "{\"file_name\": \"a.png\", \"text\": [\"one\", \"eins\", \"un\"]}\n\n\
        {\"file_name\": \"b.png\", \"text\": \"two\"}\n\
        {\"file_name\": \"b.p\n\
        {\"text\": \"nothing\"}\n\
        {\"file_name\": \"c.png\"}\n";
    put(&folder, "metadata.jsonl", list);
    let samples = open(folder.path()).unwrap();
    let found = all(&*samples);
    assert_eq!(found[..2], ["1 one", "2 two"]);
    assert_eq!(
        [told(&*samples, 0, 4), told(&*samples, 0, 5)],
        ["1 eins", "1 un"]
    );
    assert!(
        found[2].contains("metadata.jsonl, line 4: not a JSON object"),
        "{}",
        found[2]
    );
    assert!(
        found[3].contains("line 5: no file_name or image"),
        "{}",
        found[3]
    );
    assert!(
        found[4].contains("c.png: it has no caption"),
        "{}",
        found[4]
    );
    assert_eq!(samples.len(), 5);
}

/// A tar of these files.
fn tar(folder: &TempDir, name: &str, files: &[(&str, &[u8])]) -> usize {
    let mut tar = tar::Builder::new(File::create(folder.path().join(name)).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap().metadata().unwrap().len() as usize
}

#[test]
fn shards_of_webdataset() {
    let folder = tempdir().unwrap();
    let (one, two, three) = (png(1), png(2), png(3));
    let first: [(&str, &[u8]); 9] = [
        ("00.png", &one),
        ("00.txt", b"one\nand more"),
        ("00.json", b"{\"caption\": \"not this\"}"),
        ("01.json", b"{\"caption\": \"two\", \"width\": 5}"),
        ("01.png", &two),
        ("02.png", b"broken"),
        ("02.txt", b"broken"),
        ("03.txt", b"no picture"),
        ("04.png", &two),
    ];
    tar(&folder, "00000.tar", &first);
    let second: [(&str, &[u8]); 4] = [
        ("in/05.png", &three),
        ("in/05.txt", b"x\xff"),
        ("in/06.seg.png", &three),
        ("in/06.txt", b"three"),
    ];
    let length = tar(&folder, "00001.tar", &second);
    assert_eq!(layout(folder.path()).unwrap(), Layout::Shards);
    let samples = open(folder.path()).unwrap();
    let found = all(&*samples);
    assert_eq!(found[..2], ["1 one and more", "2 two"]);
    for (at, expected) in [
        (2, "00000.tar/02: not a readable picture"),
        (3, "00000.tar/03: it has no picture"),
        (4, "00000.tar/04: it has no caption"),
        (5, "00001.tar/in/05: not UTF-8"),
    ] {
        assert!(found[at].contains(expected), "{}", found[at]);
    }
    assert_eq!(found[6..], ["3 three"]);

    for (pattern, count) in [("{00000..00001}.tar", 7), ("*1.tar", 2), ("00000.tar", 5)] {
        let shards = Shards::open(&folder.path().join(pattern)).unwrap();
        assert_eq!(shards.len(), count, "{pattern}");
    }
    let missing = folder.path().join("{00000..00002}.tar");
    assert!(message(Shards::open(&missing)).contains("00002.tar does not exist"));

    // Cut anywhere, it gives what is whole, and one sample says so.
    let path = folder.path().join("00001.tar");
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), length);
    for cut in [
        length - 1024,
        length - 1100,
        4 * 512 + 10,
        2 * 512,
        700,
        512,
        100,
        0,
    ] {
        fs::write(&path, &whole[..cut]).unwrap();
        let samples = open(folder.path()).unwrap();
        let found = all(&*samples);
        assert_eq!(found[..2], ["1 one and more", "2 two"]);
        let last = found.last().unwrap();
        assert!(last.starts_with("00001.tar: 00001.tar: "), "{cut}: {last}");
        assert!(
            last.contains("cut off") || last.contains("not a tar"),
            "{cut}: {last}"
        );
    }
    put(&folder, "00001.tar", b"hello".repeat(500));
    let message = message(Shards::open(&path));
    assert!(message.contains("not a tar"), "{message}");
}

/// A `.npy` as NumPy writes it.
fn npy(descr: &str, order: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(bytes);
    file
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn embeddings_of_numpy_files() {
    let folder = tempdir().unwrap();
    // 1, -2 and 0.5 in half precision.
    let halves: Vec<u8> = [0x3c00_u16, 0xc000, 0x3800, 0x3c00]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    put(
        &folder,
        "img_emb/img_emb_2.npy",
        npy("<f2", "False", "(2, 2)", &halves),
    );
    let values = bytes(&[3.0, 4.0, f32::NAN, 0.0, 5.0, 6.0]);
    put(
        &folder,
        "img_emb/img_emb_10.npy",
        npy("<f4", "False", "(3, 2)", &values),
    );
    put(
        &folder,
        "img_emb/img_emb_11.npy",
        npy("<f4", "False", "(1, 3)", &bytes(&[0.0; 3])),
    );
    put(&folder, "text_emb/text_emb_2.npy", b"not read");
    put(
        &folder,
        "metadata/metadata_2.jsonl",
        "{\"caption\": \"a\"}\n{\"caption\": [\"b\", \"c\"]}\n",
    );
    put(&folder, "metadata/metadata_10.txt", b"d\ne\n\xff");
    put(&folder, "metadata/metadata_11.txt", b"wide\n");
    assert_eq!(layout(folder.path()).unwrap(), Layout::Embeddings);
    let samples = Embeddings::open(folder.path()).unwrap();
    assert_eq!((samples.len(), samples.width()), (6, 2));
    let get = |index, draw| samples.get(index, draw).unwrap();
    assert_eq!(
        (get(0, 0).embedding, get(0, 0).caption),
        (vec![1.0, -2.0], "a".into())
    );
    assert_eq!(
        (get(1, 3).embedding, get(1, 3).caption),
        (vec![0.5, 1.0], "c".into())
    );
    assert_eq!(
        (get(2, 0).embedding, get(2, 0).caption),
        (vec![3.0, 4.0], "d".into())
    );
    for (at, expected) in [
        (3, "img_emb_10.npy, row 1: values that are not finite"),
        (4, "img_emb_10.npy, row 2: not UTF-8"),
        (5, "img_emb_11.npy, row 0: 3 values, the first file has 2"),
    ] {
        assert!(
            message(samples.get(at, 0)).contains(expected),
            "{}",
            message(samples.get(at, 0))
        );
    }
    let message = message(open(folder.path()));
    assert!(message.contains("this needs pictures"), "{message}");
}

#[test]
fn wrong_numpy_files_are_named() {
    let folder = tempdir().unwrap();
    put(&folder, "a_0.txt", "one\ntwo\n");
    let two = bytes(&[1.0, 2.0]);
    for (file, expected) in [
        (
            npy("<f8", "False", "(2, 1)", &[0; 16]),
            "numbers of type <f8, expected <f4 or <f2",
        ),
        (npy(">f4", "False", "(2, 1)", &two), "numbers of type >f4"),
        (npy("<f4", "True", "(2, 1)", &two), "np.ascontiguousarray"),
        (
            npy("<f4", "False", "(2,)", &two),
            "shape [2], expected [n, d]",
        ),
        (npy("<f4", "False", "(2, 0)", &two), "get the file again"),
        (
            npy("<f4", "False", "(2, 2)", &two),
            "hold less than its [2, 2]",
        ),
        (npy("<f4", "False", "(1, 2)", &two), "2 captions for 1 rows"),
        (
            npy("<f4", "False", "(2, 1)", &two)[..50].to_vec(),
            "its header is cut off",
        ),
        (b"hello, I am no array".to_vec(), "does not begin with"),
        (b"short".to_vec(), "5 bytes are no .npy file"),
    ] {
        put(&folder, "a_0.npy", file);
        let message = message(Embeddings::open(folder.path()));
        assert!(message.contains(expected), "{message}");
    }
    put(&folder, "a_0.npy", npy("<f4", "False", "(2, 1)", &two));
    assert_eq!(Embeddings::open(folder.path()).unwrap().len(), 2);
    fs::remove_file(folder.path().join("a_0.txt")).unwrap();
    let message = message(Embeddings::open(folder.path()));
    assert!(message.contains("a_0.jsonl does not exist") && message.contains("read_parquet"));
}

#[test]
fn embeddings_are_read_as_they_were_written() {
    let folder = tempdir().unwrap();
    let rows = |first: usize| -> Vec<EmbeddedCaption> {
        let row = |i: usize| EmbeddedCaption {
            embedding: vec![i as f32, 0.1, -3.5],
            caption: format!("\"caption\"\n{i}"),
        };
        (first..first + 3).map(row).collect()
    };
    for part in 0..2 {
        let path = folder
            .path()
            .join(format!("embeddings_{part:05}.safetensors"));
        write_embeddings(&path, &rows(part * 3)).unwrap();
    }
    let samples = Embeddings::open(folder.path()).unwrap();
    let found: Vec<_> = (0..6).map(|i| samples.get(i, 9).unwrap()).collect();
    assert_eq!(found, [rows(0), rows(3)].concat());
    let mut uneven = rows(0);
    uneven[1].embedding.pop();
    let path = folder.path().join("x.safetensors");
    assert!(matches!(
        write_embeddings(&path, &uneven),
        Err(Error::Shape { .. })
    ));
    let file = folder.path().join("embeddings_00000.safetensors");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    assert!(matches!(
        Embeddings::open(folder.path()),
        Err(Error::WeightFile { .. })
    ));
}

#[test]
fn what_a_path_is_not_is_told() {
    let folder = tempdir().unwrap();
    let empty = message(open(folder.path()));
    assert!(
        empty.contains("expected one of: pictures with NAME.txt"),
        "{empty}"
    );
    assert!(matches!(
        open(&folder.path().join("gone")),
        Err(Error::NotFound { .. })
    ));
    put(&folder, "a.zip", b"");
    assert!(message(open(&folder.path().join("a.zip"))).contains("expected one of"));
    assert!(message(Embeddings::open(folder.path())).contains(".npy or .safetensors"));
    fs::create_dir(folder.path().join("in")).unwrap();
    assert!(message(open(folder.path())).contains("no pictures (.png, .jpg"));
    assert!(message(PictureFolder::open(Path::new("/nowhere/list.csv"))).contains("/nowhere"));
}

#[test]
fn a_loader_reads_them_in_the_same_order_from_any_step() {
    let folder = tempdir().unwrap();
    for i in 0..13_u8 {
        match i % 5 {
            3 => put(&folder, &format!("{i:02}.png"), b"broken"),
            _ => put(&folder, &format!("{i:02}.png"), png(i)),
        }
        put(&folder, &format!("{i:02}.txt"), format!("{i}\n{i} again"));
    }
    let read = |first: usize, workers: usize| -> Vec<(Vec<String>, usize)> {
        let samples = open(folder.path()).unwrap();
        let mut loader = Loader::new(samples, 4, 11, first, workers).unwrap();
        let batches = (first..10).map(|_| loader.next_batch().unwrap());
        batches
            .map(|b| {
                let captions = b.items.into_iter().map(|item| item.caption).collect();
                (captions, b.broken.len())
            })
            .collect()
    };
    let whole = read(0, 1);
    assert_eq!(read(0, 3), whole);
    assert_eq!(read(4, 2), whole[4..]);
    let broken: usize = whole.iter().map(|(_, broken)| broken).sum();
    assert!(broken >= 4, "{broken}");
    let again = whole
        .iter()
        .flat_map(|(c, _)| c)
        .filter(|c| c.contains("again"))
        .count();
    assert!((5..30).contains(&again), "{again}");
    let held = InMemory(vec![1, 2, 3]);
    assert_eq!((held.len(), held.get(2, 0).unwrap()), (3, 3));
}
