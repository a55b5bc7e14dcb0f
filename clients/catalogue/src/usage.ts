/** What --help prints. */

export const USAGE = `Embed a catalogue of images into PostgreSQL with pgvector, search it, keep it small, move it to another model,
find what is in it twice, keep up with it.

  generate-embeddings-from-catalog.ts [embed] SOURCE [options]
  generate-embeddings-from-catalog.ts search (--text TEXT | --image FILE) [options]
  generate-embeddings-from-catalog.ts index [--type vector|halfvec|bit] [options]
  generate-embeddings-from-catalog.ts migrate (--to MODEL | --status | --switch | --rollback | --drop MODEL) [options]
  generate-embeddings-from-catalog.ts watch SOURCE [options]
  generate-embeddings-from-catalog.ts duplicates [--html FILE] [--json] [options]

SOURCE        a folder of images, a .csv or .tsv, or a .jsonl/.ndjson file whose rows have an id and a path or URL;
              or leave it out and give --query. Environment: CATALOG_SOURCE, CATALOG_QUERY

  --query SQL               rows of (id, path or URL) from a database
  --query-database URL      where --query runs (default: --database)
  --id-column NAME          of a CSV or JSON line (default: id)
  --location-column NAME    of a CSV or JSON line (default: the first of path, url, location, image)
  --encoding NAME           of a CSV or JSON lines file (default: as its mark says, else utf-8): shift_jis, windows-1252, utf-16le
  --base FOLDER             relative paths are relative to this (default: the source's own folder)

  --database URL            postgresql://...  (environment: DATABASE_URL)
  --table NAME              default: image_embeddings
  --server URL              default: http://localhost:5000 (environment: CLIP_SERVER_URL; key: CLIP_API_KEY)

embed:
  --create                  create the vector extension and the table if they are not there
  --index                   create the HNSW index at the end if it is not there
  --reembed                 replace vectors of another model; without it the job refuses to mix them
  --recheck                 download images again whose URL is already done
  --dry-run                 say what would be done; write nothing

search:
  --limit N                 how many (default: 10)
                            with TABLE_search (see index): words are looked for in columns too, and why each was found is told
  --not TEXT, --not-image FILE  what is not wanted, as often as there is: less like it, and without these words
  --where COLUMN=VALUE      only these, as often as there is; also <, <=, >, >=, !=. A column named twice may have either value
  --json                    one JSON object a line

index: the HNSW index, made in parallel while the catalogue is read and written; first it tells what it loses and saves
  --type NAME               vector (default), halfvec: two bytes a number, bit: one bit a number; both need pgvector 0.7.
                            Searches compare the full vectors of what the index finds
  --measure                 only tell, of every type: recall@10 of your own rows, and the size of the index
  --sample N                rows whose neighbours are compared for it (default: 200, fewer in a large table)
  --m N, --ef-construction N  links of a row, and how far is looked for them (default: by the number of rows)
  --workers N               beside the first (default: the database's max_parallel_maintenance_workers)
  --memory SIZE             for the making (default: the database's maintenance_work_mem)
  --columns A,B             text columns that search --text looks in, of the table, or of
  --items TABLE             a table or view beside it, whose --items-id COLUMN (default: id) has the catalogue's ids.
                            All of this makes TABLE_search(words, vector, embedding_id), for search and for your own queries
  --replace                 then drop this job's HNSW indexes of other types
  --json                    one JSON object a line

migrate: a table beside the first, with the vectors of another model, until you switch and drop
  --to MODEL                make and fill it; killed or ended, the same command goes on. Ends with figures of both models
  --to-server URL           where MODEL is served (default: --server, asked with ?model=)
  --judgements FILE         captions or clicks (.jsonl or .csv: query, id): recall of both models
  --sample N                images whose neighbours are compared (default: 200, fewer in a large table)
  --follow                  with --to, --switch or --rollback: keep up with what is written to either table until interrupted
  --status                  how far it is
  --switch                  let TABLE_current show the new model's vectors; --rollback shows the old ones again
  --allow-missing           switch although rows have no vector of the other model
  --drop MODEL              drop this model's table, which is not the one shown

watch: embed what is there, and from then on what is new or changed, until interrupted
  --every SECONDS           how often to look where nothing tells of a change (default: 5)
  --prune                   delete the rows of what is gone from SOURCE, from which then all rows of the table must be
  --updated COLUMN          of --query: differs when the row has changed, as updated_at; its image is read again
  --trigger TABLE           of --query: has TABLE tell of its changes, by a trigger made on it; or NOTIFY clipsrv_watch yourself

duplicates: images of the same bytes, of the same pixels, and near ones
  --html FILE               a contact sheet, with small copies of the images inside
  --json                    one JSON object a group, one a line
  --threshold DISTANCE      how near (cosine distance); default: as near as copies of a sample of these images are to them
  --sample N                how many images are copied for that (default: 100)

  --batch N                 images in a request and in a transaction (default: 32)
  --concurrency N           requests at once (default: 4)
  --patience SECONDS        how long to wait for a server or database that is away (default: 600)
  --failures FILE           where failures are listed, one JSON object a line (default: catalog-failures.jsonl)

Exit status: 0 every image has its vector · 1 some images failed · 2 wrong use, or refused ·
3 the server or the database stayed away · 70 a bug in this program · 130 interrupted. Run the same command again to go on.
`;
