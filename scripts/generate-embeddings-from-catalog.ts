/** Embeds a catalogue of images into PostgreSQL with pgvector, and searches it: --help tells how. */
import { main } from '../clients/catalogue/src/main.ts';

process.exitCode = await main(process.argv.slice(2), process.env);
