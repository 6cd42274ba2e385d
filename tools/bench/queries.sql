-- What sqlite3 does in the benchmark: inserts, an index, joins, sorts, text, and all of it away again.
CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, city TEXT, age INTEGER);
CREATE TABLE visit(person INTEGER, day INTEGER, note TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO person SELECT i, printf('person %d', i), printf('city %d', i * 7919 % 500), i % 90 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO visit SELECT i * 104729 % 20000 + 1, i % 365, printf('note %d %s', i, hex(i * 31)) FROM n;
COMMIT;
CREATE INDEX visit_person ON visit(person);
CREATE INDEX person_city ON person(city);
SELECT city, count(*), avg(age), group_concat(name) FROM person GROUP BY city ORDER BY 2 DESC LIMIT 5;
SELECT p.city, count(*), max(v.note) FROM person p JOIN visit v ON v.person = p.id GROUP BY p.city ORDER BY 2 LIMIT 5;
SELECT upper(name) || ' of ' || replace(city, 'city', 'town') FROM person WHERE name LIKE '%77%' ORDER BY name DESC LIMIT 5;
SELECT count(DISTINCT note) FROM visit WHERE note LIKE '%3%';
UPDATE person SET name = name || ' ' || id WHERE age > 45;
DELETE FROM visit WHERE day < 100;
DROP TABLE visit;
DROP TABLE person;
