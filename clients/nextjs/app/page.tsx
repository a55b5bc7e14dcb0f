'use client';
/** Upload, search by words, search by likeness. */
import { useState, type ChangeEvent, type FormEvent } from 'react';
import type { Hit } from '../lib/catalogue.ts';

export default function Page() {
  const [text, setText] = useState('');
  const [hits, setHits] = useState<readonly Hit[]>([]);
  const [said, setSaid] = useState('');

  async function ask<T>(path: string, init?: RequestInit): Promise<T> {
    const response = await fetch(path, init);
    const answer = (await response.json()) as T & { error?: string };
    if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
    return answer;
  }

  async function run(doing: string, act: () => Promise<string>): Promise<void> {
    setSaid(doing);
    setSaid(await act().catch((error: Error) => error.message));
  }

  const search = (query: Record<string, string>, what: string): Promise<void> =>
    run('Searching ...', async () => {
      const { hits: found } = await ask<{ hits: readonly Hit[] }>(`/api/search?${new URLSearchParams(query)}`);
      setHits(found);
      return `${found.length} images like ${what}`;
    });

  async function upload(event: ChangeEvent<HTMLInputElement>): Promise<void> {
    const files = [...(event.target.files ?? [])];
    let last = '';
    await run('Embedding ...', async () => {
      for (const file of files) {
        const body = new FormData();
        body.append('image', file);
        last = (await ask<{ id: string }>('/api/generate-embedding', { method: 'POST', body })).id;
      }
      return `${files.length} embedded`;
    });
    if (last !== '') await search({ like: last }, files.at(-1)?.name ?? last);
  }

  function submit(event: FormEvent): void {
    event.preventDefault();
    if (text.trim() !== '') void search({ text }, `"${text}"`);
  }

  return (
    <main>
      <h1>Catalogue</h1>
      <p>
        <label>
          Upload images <input id="upload" type="file" accept="image/*" multiple onChange={(event) => void upload(event)} />
        </label>
      </p>
      <form onSubmit={submit}>
        <input id="text" aria-label="What to look for" placeholder="a red heart" value={text} onChange={(event) => setText(event.target.value)} />{' '}
        <button type="submit">Search</button>
      </form>
      <p id="said" role="status">
        {said}
      </p>
      <ol id="hits" style={{ display: 'flex', flexWrap: 'wrap', gap: '1rem', listStyle: 'none', padding: 0 }}>
        {hits.map(({ id, src, similarity }) => (
          <li key={id} style={{ width: '9rem', overflowWrap: 'anywhere' }}>
            <button type="button" title="More like this" onClick={() => void search({ like: id }, id)}>
              {/* The original, whatever its host: next/image would want each host named. */}
              <img src={src} alt={id} width={128} height={128} style={{ objectFit: 'contain' }} />
            </button>
            <div>{id}</div>
            <small>{similarity.toFixed(4)}</small>
          </li>
        ))}
      </ol>
    </main>
  );
}
