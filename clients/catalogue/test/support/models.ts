/** A second model for the tests: its image vectors point the other way, so that a vector of the wrong model is seen at once. */
import { execFileSync } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import path from 'node:path';
import { ClipServer, MODEL, PYTHON, REPOSITORY } from '../../../typescript/test/support/server.ts';

/** A server of the model `other`, which it writes into `folder`, and of the model that the other servers of the tests have. */
export async function serverOfBoth(folder: string): Promise<ClipServer> {
  const program = 'import sys; from pathlib import Path; from tests.support.model import write_model; write_model(Path(sys.argv[1]), weight=-1, weights_sha256="1" * 64)';
  execFileSync(PYTHON, ['-c', program, path.join(folder, 'other')], { cwd: REPOSITORY });
  const models = process.env['CLIPSRV_MODELS_DIR'] ?? path.join(REPOSITORY, 'onnx_models');
  symlinkSync(path.join(models, MODEL), path.join(folder, MODEL));
  return ClipServer.start('--models-dir', folder, '--model', 'other', '--models', MODEL);
}
