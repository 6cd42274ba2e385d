//! Generic code of the standard library and of its own, for the symbolizer.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

trait Shape {
    fn area(&self) -> f64;
    fn name(&self) -> String;
}

struct Square(f64);

struct Circle {
    r: f64,
}

impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.0
    }

    fn name(&self) -> String {
        format!("square {}", self.0)
    }
}

impl Shape for Circle {
    fn area(&self) -> f64 {
        3.14 * self.r * self.r
    }

    fn name(&self) -> String {
        format!("circle {}", self.r)
    }
}

fn collect<T: Into<f64> + Copy>(sizes: &[T]) -> BTreeMap<String, Box<dyn Shape>> {
    let shape = |(i, &x): (usize, &T)| {
        let size: f64 = x.into();
        let shape: Box<dyn Shape> = if i % 2 == 0 {
            Box::new(Square(size))
        } else {
            Box::new(Circle { r: size })
        };
        (shape.name(), shape)
    };
    sizes.iter().enumerate().map(shape).collect()
}

fn main() {
    let mut out = String::new();
    let mut areas: HashMap<String, Vec<f64>> = HashMap::new();
    let (floats, integers) = (collect(&[1.0f32, 2.0, 3.0]), collect(&[4i32, 5, 6]));

    for (name, shape) in floats.iter().chain(integers.iter()) {
        let kind = name.split(' ').next().unwrap().to_string();
        areas.entry(kind).or_default().push(shape.area());
        writeln!(out, "{}: {:.2}", name, shape.area()).unwrap();
    }
    let mut sorted: Vec<_> = areas.into_iter().collect();
    sorted.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.cmp(&b.0)));
    let sum = move || sorted.iter().map(|(_, v)| v.iter().sum::<f64>()).sum::<f64>();
    print!("{}{}", out, std::thread::spawn(sum).join().unwrap());
}
