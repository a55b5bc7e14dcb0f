-- The names of these drawings in English and Japanese, with codes of a shop: what `catalogue index --columns` searches beside the vectors.
CREATE TABLE IF NOT EXISTS drawings (
  file    text PRIMARY KEY,
  code    text NOT NULL,
  name    text NOT NULL,
  name_ja text NOT NULL,
  kind    text NOT NULL,
  price   integer NOT NULL
);
INSERT INTO drawings VALUES
  ('blue-circle.png', 'SH-0101', 'blue circle', '青い丸', 'shapes', 100),
  ('red-circle.png', 'SH-0102', 'red circle', '赤い丸', 'shapes', 100),
  ('yellow-circle.png', 'SH-0103', 'yellow circle', '黄色い丸', 'shapes', 120),
  ('star.png', 'SH-0201', 'star', '星', 'shapes', 150),
  ('check-mark.png', 'SH-0301', 'check mark', 'チェックマーク', 'shapes', 80),
  ('blue-heart.png', 'HT-0101', 'blue heart', '青いハート', 'hearts', 300),
  ('green-heart.png', 'HT-0102', 'green heart', '緑のハート', 'hearts', 300),
  ('red-heart.png', 'HT-0103', 'red heart', '赤いハート', 'hearts', 350),
  ('flag-france.png', 'FL-0033', 'flag of France', 'フランスの国旗', 'flags', 500),
  ('flag-germany.png', 'FL-0049', 'flag of Germany', 'ドイツの国旗', 'flags', 500),
  ('flag-italy.png', 'FL-0039', 'flag of Italy', 'イタリアの国旗', 'flags', 500),
  ('flag-ukraine.png', 'FL-0380', 'flag of Ukraine', 'ウクライナの国旗', 'flags', 500),
  ('christmas-tree.png', 'SE-1224', 'Christmas tree', 'クリスマスツリー', 'seasons', 900),
  ('crescent-moon.png', 'SE-0007', 'crescent moon', '三日月', 'seasons', 400),
  ('envelope.png', 'OF-0001', 'envelope', '封筒', 'office', 60),
  ('slightly-smiling-face.png', 'FA-0001', 'slightly smiling face', 'にっこり笑う顔', 'faces', 200)
ON CONFLICT DO NOTHING;
