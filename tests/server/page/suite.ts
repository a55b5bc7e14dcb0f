/** All tests of the page in one process, so that they share one browser: `node --import tsx --test tests/server/page/suite.ts`. */
import './album.test.ts';
import './calls.test.ts';
import './everyone.test.ts';
import './faults.test.ts';
import './gallery.test.ts';
